// NCCL for tests on machines without a GPU: the ranks of a group are threads of this process, sums and copies are real.
//
// Useful for: proving what NcclCollective makes of every answer that NCCL may give, and that it keeps NCCL's rules.
// Faults are scripted by rank and call; what breaks a rule is written down as a breach:
//   - a communicator is used after it was aborted or destroyed, or by two threads at once;
//   - it is destroyed before it was finalized;
//   - the ranks of a group call different things;
//   - a config is not what the initializer makes with blocking = 0; a group call is ended that was not started.
// Not seen: how long NCCL takes, and what it does with a real device.
#ifndef SLUICE_TESTS_TESTING_FAKE_NCCL_FAKE_NCCL_H_
#define SLUICE_TESTS_TESTING_FAKE_NCCL_FAKE_NCCL_H_

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/collective/device_stream.h"
#include "common/collective/nccl_api.h"

namespace sluice {

enum class NcclCall {
  kGetUniqueId,
  kCommInitRankConfig,
  kCommGetAsyncError,
  kAllReduce,
  kBroadcast,
  kCommFinalize,
  kCommDestroy,
  kCommAbort,
};
// For the names of tests.
const char* NcclCallName(NcclCall call);

// What one call answers in place of doing its work.
struct NcclFault {
  NcclResult result = NcclResult::kSuccess;
  // 0: the call itself answers `result`. Else it answers kInProgress, and so do this many looks at the communicator's
  // state, after which the state is `result`, and for kSuccess the work is done.
  int looks_in_progress = 0;

  static constexpr int kForEver = 1 << 30;
};

struct FakeNcclOptions {
  // Whether ranks that wait for one that is gone hear of it (kRemoteError), as over a network, or not, as over NVLink.
  bool peers_notice = true;
  // Where the device finds what tensors say lies at an address. Empty: there.
  std::function<void*(const void*)> memory;
  // How many more times a stream says that it is not done after an abort.
  int looks_until_stopped = 0;
};

// Thread-safe. Outlives what it made.
class FakeNccl {
 public:
  explicit FakeNccl(FakeNcclOptions options = {});
  ~FakeNccl();

  NcclApi api();
  std::unique_ptr<DeviceStream> NewStream(const at::Device& device = at::kCPU);

  // The next `call` of `rank` (of any rank, for kGetUniqueId) goes wrong so. One fault a call and rank at a time.
  void Inject(int rank, NcclCall call, NcclFault fault);
  // Runs once, in a stream's next Done(), outside all locks.
  void OnNextDone(std::function<void()> action);
  // The next use of a stream throws, as LibTorch does when CUDA fails.
  void FailNextStreamUse(const std::string& text);

  int live_communicators() const;
  int times(NcclCall call) const;
  int grouped_aborts() const;  // aborts between ncclGroupStart and ncclGroupEnd
  std::vector<std::string> breaches() const;

 private:
  class Impl;
  const std::unique_ptr<Impl> impl_;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_TESTING_FAKE_NCCL_FAKE_NCCL_H_
