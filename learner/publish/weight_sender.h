// Who broadcasts versions in the weight group for a rank: what RolloutHub needs of it. learner/broadcast implements it.
#ifndef SLUICE_LEARNER_PUBLISH_WEIGHT_SENDER_H_
#define SLUICE_LEARNER_PUBLISH_WEIGHT_SENDER_H_

#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "learner/publish/publication.h"

namespace sluice::learner {

struct BroadcastOrder {
  std::string job_id;
  uint64_t version = 0;
  GroupPlace place;
  uint64_t chunk_bytes = 0;  // the payload goes in pieces of so many bytes
  absl::Duration timeout;    // of forming the group, and of each call in it
};

// Both functions return at once. Thread-safe.
class WeightSender {
 public:
  virtual ~WeightSender() = default;
  // What waits to be sent is forgotten for it: only the newest version is worth a round. How it went is told to
  // RolloutHub::OnBroadcast.
  virtual void Send(BroadcastOrder order) = 0;
  // Groups up to this epoch are dead: what is under way in one fails soon.
  virtual void Abort(uint64_t epoch) = 0;
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_PUBLISH_WEIGHT_SENDER_H_
