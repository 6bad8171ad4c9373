// Collectives of the learner group, and the rendezvous store that forms it.
//
// A group belongs to one epoch and is dead after its first error: every later call fails, and the owner forms a new
// group in a new epoch. Calls must come in the same order on all ranks, from one thread; Abort may come from any.
#ifndef SLUICE_COMMON_COLLECTIVE_COLLECTIVE_H_
#define SLUICE_COMMON_COLLECTIVE_COLLECTIVE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/sync/kv_store.h"

namespace sluice {

class Collective {
 public:
  virtual ~Collective() = default;
  virtual int rank() const = 0;
  virtual int world_size() const = 0;
  virtual uint64_t epoch() const = 0;

  // In-place sum over ranks; the same shape and dtype (float32, float64, int64) everywhere; contiguous. On any device:
  // Gloo copies what is not on the processor to the host and back, NCCL what is not on its GPU there and back, once
  // each way. Unavailable: a peer is gone; DeadlineExceeded: a peer is silent. The message never says which: ask
  // membership.
  virtual absl::Status AllReduceSum(at::Tensor tensor) = 0;
  // In-place copy of `root`'s tensor to all ranks.
  virtual absl::Status Broadcast(at::Tensor tensor, int root) = 0;
  virtual absl::Status Barrier() = 0;
  // Makes calls in progress and later ones fail soon, here and, as Gloo's connections close, at the peers (a peer that
  // waits for none of them notices within about a second). Over NCCL a peer may have to be told: its own Abort, or its
  // deadline. Thread-safe, idempotent.
  virtual void Abort() = 0;
};

// A group of one: every call succeeds at once, and fails after Abort. Epoch 0: there is no group that it could be taken
// out of.
std::unique_ptr<Collective> MakeSingleCollective(uint64_t epoch = 0);

struct GlooOptions {
  // Tells apart the groups that one epoch forms one after the other, one a job say; no '/'. Two groups of one epoch and
  // name would find each other's closed ports.
  std::string name = "group";
  std::string host = "127.0.0.1";              // address that this rank listens on
  absl::Duration timeout = absl::Seconds(30);  // of a call and of forming the group
};

// Forms a Gloo group of `world_size` ranks through `store` (keys under "epoch/<epoch>/<name>/"). Blocks until all ranks
// came or the timeout passed (DeadlineExceeded).
absl::StatusOr<std::unique_ptr<Collective>> MakeGlooCollective(std::shared_ptr<KvStore> store, int rank, int world_size,
                                                               uint64_t epoch, const GlooOptions& options);

}  // namespace sluice

#endif  // SLUICE_COMMON_COLLECTIVE_COLLECTIVE_H_
