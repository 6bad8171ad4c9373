// NCCL's C interface as a table of functions, so that its library is loaded when it is asked for and a fake can stand
// in for it. Own declarations, because nccl.h comes with a GPU's wheels alone; where it is found, a test holds these
// against it (tests/common/collective/nccl_abi_test.cc).
//
// What each function does is in NVIDIA's "NCCL User Guide" under the name in the comment.
#ifndef SLUICE_COMMON_COLLECTIVE_NCCL_API_H_
#define SLUICE_COMMON_COLLECTIVE_NCCL_API_H_

#include <climits>
#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace sluice {

struct NcclComm;  // ncclComm_t points to it

enum class NcclResult : int {
  kSuccess = 0,
  kUnhandledCudaError = 1,
  kSystemError = 2,
  kInternalError = 3,
  kInvalidArgument = 4,
  kInvalidUsage = 5,
  kRemoteError = 6,
  kInProgress = 7,
};

enum class NcclDataType : int { kInt64 = 4, kFloat32 = 7, kFloat64 = 8 };
enum class NcclRedOp : int { kSum = 0 };

struct NcclUniqueId {
  char internal[128];
};

// ncclConfig_t of NCCL 2.28; later versions append fields and fill them in by `version`.
struct NcclConfig {
  size_t size = sizeof(NcclConfig);
  unsigned int magic = 0xcafebeef;
  unsigned int version = 22800;  // of this layout
  int blocking = 0;              // not NCCL's default: every call returns at once and is polled
  int cga_cluster_size = INT_MIN;
  int min_ctas = INT_MIN;
  int max_ctas = INT_MIN;
  const char* net_name = nullptr;
  int split_share = INT_MIN;
  int traffic_class = INT_MIN;
  const char* comm_name = nullptr;
  int collnet_enable = INT_MIN;
  int cta_policy = INT_MIN;
  int shrink_share = INT_MIN;
  int nvls_ctas = INT_MIN;
  int n_channels_per_net_peer = INT_MIN;
  int nvlink_centric_sched = INT_MIN;
};

// Streams are cudaStream_t.
struct NcclApi {
  std::function<NcclResult(int* version)> get_version;             // ncclGetVersion
  std::function<const char*(NcclResult result)> get_error_string;  // ncclGetErrorString
  std::function<const char*(NcclComm* comm)> get_last_error;       // ncclGetLastError
  std::function<NcclResult(NcclUniqueId* id)> get_unique_id;       // ncclGetUniqueId
  std::function<NcclResult(NcclComm** comm, int ranks, NcclUniqueId id, int rank, NcclConfig* config)>
      comm_init_rank_config;                                                          // ncclCommInitRankConfig
  std::function<NcclResult(NcclComm* comm, NcclResult* state)> comm_get_async_error;  // ncclCommGetAsyncError
  std::function<NcclResult(const void* send, void* receive, size_t count, NcclDataType type, NcclRedOp op,
                           NcclComm* comm, void* stream)>
      all_reduce;  // ncclAllReduce
  std::function<NcclResult(const void* send, void* receive, size_t count, NcclDataType type, int root, NcclComm* comm,
                           void* stream)>
      broadcast;                                            // ncclBroadcast
  std::function<NcclResult()> group_start;                  // ncclGroupStart
  std::function<NcclResult()> group_end;                    // ncclGroupEnd
  std::function<NcclResult(NcclComm* comm)> comm_finalize;  // ncclCommFinalize
  std::function<NcclResult(NcclComm* comm)> comm_destroy;   // ncclCommDestroy
  std::function<NcclResult(NcclComm* comm)> comm_abort;     // ncclCommAbort
};

// Loads libnccl.so.2: the one that LibTorch's CUDA half has loaded, else one that the system knows, else that of the
// wheel nvidia-nccl-cu13 beside LibTorch. It stays loaded. FailedPrecondition with the remedy: it is not there, or
// older than 2.28.
absl::StatusOr<NcclApi> LoadNccl();
// The same from the first of `libraries`, names or paths, that is there.
absl::StatusOr<NcclApi> LoadNcclFrom(const std::vector<std::string>& libraries);

}  // namespace sluice

#endif  // SLUICE_COMMON_COLLECTIVE_NCCL_API_H_
