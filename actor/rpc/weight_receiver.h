// How weights come by a broadcast: what the actor's client needs of the weight group. main joins it to
// common/collective.
#ifndef SLUICE_ACTOR_RPC_WEIGHT_RECEIVER_H_
#define SLUICE_ACTOR_RPC_WEIGHT_RECEIVER_H_

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/sync/kv_store.h"
#include "common/types/group_place.h"

namespace sluice::actor {

// One for each attachment to a rank.
class WeightReceiver {
 public:
  virtual ~WeightReceiver() = default;
  // Takes part in the broadcast of the group of `place`, formed first if it is another one than before, and writes what
  // comes to `bytes`; after an error they hold anything. Nothing of it is verified. Blocks; one thread.
  virtual absl::Status Receive(const GroupPlace& place, absl::Span<char> bytes, uint64_t chunk_bytes,
                               absl::Duration timeout) = 0;
  // Groups up to this epoch are dead: what is under way in one fails soon. Any thread.
  virtual void Abort(uint64_t epoch) = 0;
};

// `store`: where the members of the rank's groups meet.
using MakeWeightReceiver = std::function<std::shared_ptr<WeightReceiver>(std::shared_ptr<KvStore> store)>;

}  // namespace sluice::actor

#endif  // SLUICE_ACTOR_RPC_WEIGHT_RECEIVER_H_
