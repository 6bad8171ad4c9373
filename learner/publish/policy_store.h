// What a learner rank keeps for its actors to fetch: the last two published policies of the open job, and its catalog.
//
// Two, because an actor may still fetch one while the next is published. Payloads are immutable and shared: a fetch in
// progress keeps its own alive. Thread-safe.
#ifndef SLUICE_LEARNER_PUBLISH_POLICY_STORE_H_
#define SLUICE_LEARNER_PUBLISH_POLICY_STORE_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/catalog/trie.h"
#include "common/sync/mutex.h"
#include "learner/publish/policy_snapshot.h"

namespace sluice::learner {

// The arena as it leaves the learner: its float32 values, little-endian, and their checksums.
std::shared_ptr<const PolicySnapshot> MakeSnapshot(uint64_t version, absl::Span<const float> arena);

// MakeSnapshot in memory that is used again: a snapshot that its last holder lets go is written over by the next one.
// Fresh memory for each version costs more than copying and hashing do, for the page faults. One thread encodes;
// snapshots may be let go by any, also after the encoder is gone.
class SnapshotEncoder {
 public:
  std::shared_ptr<const PolicySnapshot> Encode(uint64_t version, absl::Span<const float> arena);

  // Snapshots that memory was taken for, so far.
  uint64_t allocated() const { return allocated_; }

 private:
  struct Pool {
    Mutex mutex;
    std::unique_ptr<PolicySnapshot> spare ABSL_GUARDED_BY(mutex);  // one is enough: they are made one after the other
  };
  const std::shared_ptr<Pool> pool_ = std::make_shared<Pool>();
  uint64_t allocated_ = 0;
};

class PolicyStore : public SnapshotStore {
 public:
  static constexpr size_t kKept = 2;

  // Keeps the snapshot beside the one before it; another job's are dropped.
  void Put(const std::string& job_id, std::shared_ptr<const PolicySnapshot> snapshot) override;
  // The job's catalog, which replaces the one before.
  void PutCatalog(const std::string& job_id, const Trie& trie);
  // Forgets everything, when a job ends.
  void Clear();

  // NotFound names what is kept instead.
  absl::StatusOr<std::shared_ptr<const PolicySnapshot>> Find(const std::string& job_id, uint64_t version) const;
  // The catalog document (common/transfer).
  absl::StatusOr<std::shared_ptr<const std::string>> FindCatalog(const std::string& job_id,
                                                                 const std::string& catalog_version) const;

 private:
  mutable Mutex mutex_;
  std::string job_id_ ABSL_GUARDED_BY(mutex_);
  std::deque<std::shared_ptr<const PolicySnapshot>> snapshots_ ABSL_GUARDED_BY(mutex_);  // oldest first
  std::string catalog_job_id_ ABSL_GUARDED_BY(mutex_);
  std::string catalog_version_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const std::string> catalog_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_PUBLISH_POLICY_STORE_H_
