// A group over NCCL: GPUs reduce among themselves, without a copy to the host.
//
// Nothing here waits inside NCCL. Communicators are non-blocking; every call is followed by looks at the communicator's
// state and at the stream until both are done or the time is over, so a peer that is dead, stuck or never came costs a
// deadline and not the process. After the first error the communicator is aborted: recovery is a new group with a
// fresh id in a new epoch, the same path as Gloo's.
//
// A dead peer is noticed by NCCL itself only where the network tells (ncclRemoteError); over NVLink or shared memory it
// is a silent one. Whoever knows better (membership, by heartbeat) calls Abort.
#ifndef SLUICE_COMMON_COLLECTIVE_NCCL_COLLECTIVE_H_
#define SLUICE_COMMON_COLLECTIVE_NCCL_COLLECTIVE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/collective/collective.h"
#include "common/collective/device_stream.h"
#include "common/collective/nccl_api.h"
#include "common/sync/kv_store.h"
#include "common/sync/mutex.h"
#include "common/time/clock.h"

namespace sluice {

struct NcclOptions {
  // Tells apart the groups of one epoch: one after the other (a job each), or beside one another (a communicator of
  // their own for weights, so that a broadcast that hangs stops no gradient). No '/'. A group forms once under a name.
  std::string name = "group";
  absl::Duration timeout = absl::Seconds(30);  // of a call and of forming the group
  // Of leaving in order, after which the communicator is aborted; and, after an abort, of the device's work to end.
  absl::Duration close_timeout = absl::Seconds(5);
  NowFunction now = MonotonicClock();
  // Between two looks at NCCL; empty: 20 microseconds of sleep, little beside the millisecond of a gradient.
  std::function<void()> pause;
};

class NcclCollective : public Collective {
 public:
  // Forms the group of `world_size` ranks, each with a device of its own; keys under "epoch/<epoch>/<name>/nccl/" of
  // `store`. Blocks until all ranks came or the timeout passed (DeadlineExceeded). Other errors as AllReduceSum's, and
  // the store's.
  static absl::StatusOr<std::unique_ptr<NcclCollective>> Form(const NcclApi& api, std::unique_ptr<DeviceStream> stream,
                                                              KvStore& store, int rank, int world_size, uint64_t epoch,
                                                              NcclOptions options);
  // Leaves in order if no call failed and the peers let it, within close_timeout.
  ~NcclCollective() override;

  int rank() const override { return rank_; }
  int world_size() const override { return world_size_; }
  uint64_t epoch() const override { return epoch_; }

  // Return when the device has done it: an error has no other way to the caller. Tensors that are not on the stream's
  // device are copied there and back. Beside the interface's errors, with NCCL's text: InvalidArgument (a wrong call;
  // two ranks on one GPU), Internal (NCCL's own), Unavailable (CUDA, the system, a peer).
  absl::Status AllReduceSum(at::Tensor tensor) override;
  absl::Status Broadcast(at::Tensor tensor, int root) override;
  absl::Status Barrier() override;
  void Abort() override { AbortTogether({this}); }

  // Aborts all the groups in one call of NCCL: of two that hang in one process, the abort of the first alone may wait
  // for the second (pytorch#119797). Thread-safe.
  static void AbortTogether(absl::Span<NcclCollective* const> groups);

 private:
  NcclCollective(const NcclApi& api, std::unique_ptr<DeviceStream> stream, int rank, int world_size, uint64_t epoch,
                 NcclOptions options);

  absl::StatusOr<NcclUniqueId> ExchangeId(KvStore& store, absl::Time deadline);
  absl::Status Init(KvStore& store);
  absl::Status Close();
  // `enqueue` puts the operation over the tensor (the first argument, on the device) on the stream.
  absl::Status Run(absl::string_view what, at::Tensor tensor,
                   absl::FunctionRef<NcclResult(const at::Tensor&, NcclComm*)> enqueue);
  // Calls `function` with the communicator, which nobody else is in meanwhile. Unavailable if it was aborted.
  absl::Status Call(absl::string_view name, absl::FunctionRef<NcclResult(NcclComm*)> function);
  // Whether NCCL is done with what it was last asked for, so that it is on the stream.
  absl::StatusOr<bool> Settled();
  // Until NCCL and the stream are done.
  absl::Status Await(absl::Time deadline);
  // After an abort: until the device touches no tensor any more, or close_timeout is over.
  void AwaitStream();
  absl::Status Error(absl::string_view where, NcclResult result) const;
  // The communicator, for the last time: from here on the group is dead.
  NcclComm* Take();

  const NcclApi api_;
  const std::unique_ptr<DeviceStream> stream_;
  const int rank_;
  const int world_size_;
  const uint64_t epoch_;
  const NcclOptions options_;
  Mutex mutex_;  // NCCL allows one thread at a time in a communicator, and none beside an abort
  NcclComm* comm_ ABSL_GUARDED_BY(mutex_) = nullptr;  // null: dead
};

}  // namespace sluice

#endif  // SLUICE_COMMON_COLLECTIVE_NCCL_COLLECTIVE_H_
