#include "common/collective/nccl_api.h"

#include <torch/cuda.h>
#include <torch/types.h>

#include <string>

#include "common/collective/nccl_collective.h"
#include "common/sync/memory_kv_store.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/fake_nccl/fake_nccl.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

TEST(LoadNcclTest, AMissingLibraryIsAnErrorWithItsRemedy) {
  const absl::Status status = LoadNcclFrom({"libnot-there.so.2", "./not-there/libnccl.so.2"}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("libnot-there.so.2"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("not-there/libnccl.so.2"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("install --no-deps -r requirements-gpu.txt"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("--collective gloo"));
}

TEST(LoadNcclTest, ALibraryWithoutNcclsFunctionsIsRefused) {
  const absl::Status status = LoadNcclFrom({"libc.so.6"}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no function ncclGetVersion"));
}

// NCCL itself, where it is installed: as far as it goes without a GPU.
class RealNcclTest : public ::testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<NcclApi> api = LoadNccl();
    if (!api.ok()) GTEST_SKIP() << api.status().message();
    api_ = *std::move(api);
  }
  NcclApi api_;
};

TEST_F(RealNcclTest, SpeaksThroughTheTable) {
  int version = 0;
  ASSERT_EQ(api_.get_version(&version), NcclResult::kSuccess);
  EXPECT_GE(version, 22800);
  EXPECT_THAT(std::string(api_.get_error_string(NcclResult::kInvalidUsage)), HasSubstr("invalid usage"));
  EXPECT_THAT(std::string(api_.get_error_string(NcclResult::kRemoteError)), HasSubstr("remote process"));
}

TEST_F(RealNcclTest, WithoutAGpuFormingAGroupFailsAndDoesNotHang) {
  if (torch::cuda::is_available()) GTEST_SKIP() << "this machine has a GPU; the suite of collectives forms its groups";
  FakeNccl streams;
  MemoryKvStore store;
  const auto group = NcclCollective::Form(api_, streams.NewStream(), store, 0, 1, 1, {});
  EXPECT_EQ(group.status().code(), absl::StatusCode::kUnavailable) << group.status();
  EXPECT_THAT(std::string(group.status().message()), HasSubstr("unhandled cuda error"));
}

}  // namespace
}  // namespace sluice
