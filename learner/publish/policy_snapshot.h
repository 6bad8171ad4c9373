// Immutable weights under a version, and where they are kept for actors to fetch.
#ifndef SLUICE_LEARNER_PUBLISH_POLICY_SNAPSHOT_H_
#define SLUICE_LEARNER_PUBLISH_POLICY_SNAPSHOT_H_

#include <cstdint>
#include <memory>
#include <string>

#include "common/transfer/transfer.h"

namespace sluice::learner {

// Immutable weights under a version, as they leave the learner.
struct PolicySnapshot {
  uint64_t version = 0;
  std::string payload;   // the parameter arena, float32 little-endian
  std::string checksum;  // XXH3-128 of the payload, hexadecimal
  ChunkTable chunks;     // made with it; without one, whoever sends the payload hashes its chunks each time
};

// Keeps published weights for actors to fetch. PolicyStore implements it. Thread-safe.
class SnapshotStore {
 public:
  virtual ~SnapshotStore() = default;
  virtual void Put(const std::string& job_id, std::shared_ptr<const PolicySnapshot> snapshot) = 0;
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_PUBLISH_POLICY_SNAPSHOT_H_
