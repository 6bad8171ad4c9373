// The actor's policy: weights of the latest version, a shadow copy for the next one, and decoding under the catalog's
// trie.
#ifndef SLUICE_ACTOR_SAMPLING_POLICY_DECODER_H_
#define SLUICE_ACTOR_SAMPLING_POLICY_DECODER_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "actor/rollout/decoder.h"
#include "common/catalog/trie.h"
#include "common/model_config/policy_config.h"
#include "common/sync/mutex.h"
#include "common/tensor/device.h"

namespace sluice::actor {

class PolicySnapshot;

// SetJob, Stage, Commit, LoadWeights and EndJob are called by one thread; Current by any. A snapshot is used by one
// thread at a time.
class PolicyDecoder : public Decoder {
 public:
  // Policies compute where `placement` says; OpenDevice must have been called.
  explicit PolicyDecoder(const Placement& placement = {});
  ~PolicyDecoder() override;

  // Prepares for a job: no snapshot until its first weights. InvalidArgument: a configuration that is not one, or
  // not of this catalog; Unimplemented: an architecture or feature that Sluice does not know.
  absl::Status SetJob(const std::string& model_config_json, std::shared_ptr<const Trie> trie);

  // The shadow arena that the next weights are written to (float32, little-endian), until Commit makes them the current
  // ones. Blocks that are being worked on keep the snapshot they began with. Memory: two copies of the weights, a third
  // one while a snapshot before the last is still in use; on a device, and from here to Commit one on the host.
  // FailedPrecondition: no job; InvalidArgument: another size than the configuration's.
  absl::StatusOr<absl::Span<char>> Stage(uint64_t bytes);
  // Makes what was staged the current weights; the caller has verified them. FailedPrecondition: nothing is staged, or
  // the version is not above the current one.
  absl::Status Commit(uint64_t version);
  // Both at once, of a payload that lies elsewhere.
  absl::Status LoadWeights(uint64_t version, absl::string_view payload);

  // The current weights for whoever sends them on: `owner` keeps them as they are. Empty bytes: there are none, or they
  // lie on a device. Memory: while an owner outlives the version, Stage takes a third copy.
  struct Weights {
    std::shared_ptr<const void> owner;
    absl::string_view bytes;
  };
  Weights ActiveWeights() const;

  // Forgets job and weights.
  void EndJob();

  std::shared_ptr<Snapshot> Current() const override;

 private:
  absl::StatusOr<std::shared_ptr<PolicySnapshot>> MakeSnapshot(const std::shared_ptr<const Trie>& trie) const;

  const Placement placement_;
  PolicyConfig config_;
  std::shared_ptr<const Trie> trie_;       // null: no job
  std::shared_ptr<PolicySnapshot> spare_;  // the arena that the next version is written to
  bool staged_ = false;

  mutable Mutex mutex_;
  std::shared_ptr<PolicySnapshot> current_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace sluice::actor

#endif  // SLUICE_ACTOR_SAMPLING_POLICY_DECODER_H_
