// Holds our declarations of NCCL against nccl.h, where the machine has one. Nothing here runs NCCL.
#include <nccl.h>

#include <cstddef>
#include <functional>
#include <tuple>
#include <type_traits>

#include "common/collective/nccl_api.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

// Passed alike: pointers as pointers, enums and ints by size, NCCL's id by value.
template <typename Ours, typename Theirs>
constexpr bool kPassedAlike = std::is_pointer_v<Ours> == std::is_pointer_v<Theirs>&& std::is_class_v<Ours> ==
                                  std::is_class_v<Theirs> &&
                              sizeof(Ours) == sizeof(Theirs) && alignof(Ours) == alignof(Theirs);

template <typename Ours, typename Theirs>
constexpr bool kSameFunction = false;
template <typename... Ours, typename... Theirs>
constexpr bool kSameFunction<std::tuple<Ours...>, std::tuple<Theirs...>> = [] {
  if constexpr (sizeof...(Ours) == sizeof...(Theirs)) return (kPassedAlike<Ours, Theirs> && ...);
  return false;
}();

// A function's result and arguments as a tuple.
template <typename Function>
struct Parts;
template <typename Result, typename... Arguments>
struct Parts<Result(Arguments...)> {
  using Types = std::tuple<Result, Arguments...>;
};
template <typename Function>
struct Parts<std::function<Function>> : Parts<Function> {};

#define SLUICE_EXPECT_SAME(ours, theirs)                                                              \
  static_assert(kSameFunction<Parts<decltype(NcclApi::ours)>::Types, Parts<decltype(theirs)>::Types>, \
                "NcclApi::" #ours " is not " #theirs)

SLUICE_EXPECT_SAME(get_version, ncclGetVersion);
SLUICE_EXPECT_SAME(get_error_string, ncclGetErrorString);
SLUICE_EXPECT_SAME(get_last_error, ncclGetLastError);
SLUICE_EXPECT_SAME(get_unique_id, ncclGetUniqueId);
SLUICE_EXPECT_SAME(comm_init_rank_config, ncclCommInitRankConfig);
SLUICE_EXPECT_SAME(comm_get_async_error, ncclCommGetAsyncError);
SLUICE_EXPECT_SAME(all_reduce, ncclAllReduce);
SLUICE_EXPECT_SAME(broadcast, ncclBroadcast);
SLUICE_EXPECT_SAME(group_start, ncclGroupStart);
SLUICE_EXPECT_SAME(group_end, ncclGroupEnd);
SLUICE_EXPECT_SAME(comm_finalize, ncclCommFinalize);
SLUICE_EXPECT_SAME(comm_destroy, ncclCommDestroy);
SLUICE_EXPECT_SAME(comm_abort, ncclCommAbort);

#define SLUICE_EXPECT_VALUE(ours, theirs) static_assert(static_cast<int>(ours) == static_cast<int>(theirs))

SLUICE_EXPECT_VALUE(NcclResult::kSuccess, ncclSuccess);
SLUICE_EXPECT_VALUE(NcclResult::kUnhandledCudaError, ncclUnhandledCudaError);
SLUICE_EXPECT_VALUE(NcclResult::kSystemError, ncclSystemError);
SLUICE_EXPECT_VALUE(NcclResult::kInternalError, ncclInternalError);
SLUICE_EXPECT_VALUE(NcclResult::kInvalidArgument, ncclInvalidArgument);
SLUICE_EXPECT_VALUE(NcclResult::kInvalidUsage, ncclInvalidUsage);
SLUICE_EXPECT_VALUE(NcclResult::kRemoteError, ncclRemoteError);
SLUICE_EXPECT_VALUE(NcclResult::kInProgress, ncclInProgress);
SLUICE_EXPECT_VALUE(NcclDataType::kInt64, ncclInt64);
SLUICE_EXPECT_VALUE(NcclDataType::kFloat32, ncclFloat32);
SLUICE_EXPECT_VALUE(NcclDataType::kFloat64, ncclFloat64);
SLUICE_EXPECT_VALUE(NcclRedOp::kSum, ncclSum);
static_assert(sizeof(NcclUniqueId) == NCCL_UNIQUE_ID_BYTES);

TEST(NcclAbiTest, OurConfigIsTheInitializersWithoutBlocking) {
  const NcclConfig ours;
  const ncclConfig_t theirs = NCCL_CONFIG_INITIALIZER;
  // A later nccl.h appends fields.
  ASSERT_LE(sizeof(ours), sizeof(theirs));
  EXPECT_LE(ours.version, theirs.version);
  EXPECT_EQ(ours.magic, theirs.magic);
  EXPECT_EQ(ours.size, sizeof(ours));
#define SLUICE_EXPECT_FIELD(mine, their)                                \
  EXPECT_EQ(offsetof(NcclConfig, mine), offsetof(ncclConfig_t, their)); \
  EXPECT_EQ(ours.mine, theirs.their)
  SLUICE_EXPECT_FIELD(cga_cluster_size, cgaClusterSize);
  SLUICE_EXPECT_FIELD(min_ctas, minCTAs);
  SLUICE_EXPECT_FIELD(max_ctas, maxCTAs);
  SLUICE_EXPECT_FIELD(net_name, netName);
  SLUICE_EXPECT_FIELD(split_share, splitShare);
  SLUICE_EXPECT_FIELD(traffic_class, trafficClass);
  SLUICE_EXPECT_FIELD(comm_name, commName);
  SLUICE_EXPECT_FIELD(collnet_enable, collnetEnable);
  SLUICE_EXPECT_FIELD(cta_policy, CTAPolicy);
  SLUICE_EXPECT_FIELD(shrink_share, shrinkShare);
  SLUICE_EXPECT_FIELD(nvls_ctas, nvlsCTAs);
  SLUICE_EXPECT_FIELD(n_channels_per_net_peer, nChannelsPerNetPeer);
  SLUICE_EXPECT_FIELD(nvlink_centric_sched, nvlinkCentricSched);
  EXPECT_EQ(offsetof(NcclConfig, blocking), offsetof(ncclConfig_t, blocking));
  EXPECT_EQ(ours.blocking, 0);
}

}  // namespace
}  // namespace sluice
