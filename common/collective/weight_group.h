// Bytes from one process to many by a broadcast: the group of a learner rank and its actors, apart from the group that
// reduces gradients.
//
// All members are told their place by the rank (learner/publish/publication.h has the rules), form the group of that
// epoch and stay in it while the epoch is the same. Whatever goes wrong costs the group: the next one has another
// epoch.
#ifndef SLUICE_COMMON_COLLECTIVE_WEIGHT_GROUP_H_
#define SLUICE_COMMON_COLLECTIVE_WEIGHT_GROUP_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/collective/collective.h"
#include "common/collective/nccl_api.h"
#include "common/sync/kv_store.h"
#include "common/sync/mutex.h"
#include "common/types/group_place.h"

namespace sluice {

// Forms the group of an epoch through keys "epoch/<epoch>/..." of `store`. `timeout` is that of forming it and of each
// call in it. Called from one thread.
using FormGroup = std::function<absl::StatusOr<std::unique_ptr<Collective>>(
    std::shared_ptr<KvStore> store, const GroupPlace& place, absl::Duration timeout)>;

// `host`: address of this machine that the other members reach.
FormGroup GlooGroups(std::string host);
FormGroup NcclGroups(NcclApi api, const at::Device& device);

// What a process broadcasts weights over.
struct WeightBackend {
  std::string name;  // "gloo", "nccl"; empty: it does not
  FormGroup form;    // empty: the same
};
// What --weights asks for (ParseWeights), with its library loaded. FailedPrecondition: NCCL is asked for by name and
// not there.
absl::StatusOr<WeightBackend> OpenWeightBackend(absl::string_view weights, const at::Device& device, bool tls,
                                                const std::string& host);

class WeightGroup {
 public:
  WeightGroup(FormGroup form, std::shared_ptr<KvStore> store);
  ~WeightGroup();

  // Copies rank 0's bytes to all members, in pieces of `chunk_bytes` (a multiple of 4, the same everywhere), of which
  // an abort ends the next one at the latest. Forms the group first unless it is that of the call before. After an
  // error the group is dead, and what the other members hold is anything. As many bytes everywhere, a multiple of 4, as
  // weights are float32. From one thread.
  // Aborted: the epoch was; the rest as Collective's and the store's.
  absl::Status Broadcast(const GroupPlace& place, absl::Span<char> bytes, uint64_t chunk_bytes, absl::Duration timeout);

  // Ends the groups up to this epoch: a call in progress fails soon, later ones at once. Thread-safe. A group that is
  // forming may end by its timeout only: Gloo and NCCL connect its members in one call.
  void Abort(uint64_t epoch);

 private:
  class WatchedStore;

  absl::StatusOr<std::shared_ptr<Collective>> GroupOf(const GroupPlace& place, absl::Duration timeout);
  absl::Status CheckAlive(uint64_t epoch) const;
  // Lets the group go, for its owner's thread.
  void Drop();

  const FormGroup form_;
  const std::shared_ptr<KvStore> store_;
  mutable Mutex mutex_;
  std::shared_ptr<Collective> group_ ABSL_GUARDED_BY(mutex_);  // null: none
  uint64_t aborted_ ABSL_GUARDED_BY(mutex_) = 0;               // epochs up to this one are dead
};

}  // namespace sluice

#endif  // SLUICE_COMMON_COLLECTIVE_WEIGHT_GROUP_H_
