// Where verified weights go: what the actor's client needs of the policy that samples. main joins it to
// actor/sampling.
#ifndef SLUICE_ACTOR_RPC_POLICY_LOADER_H_
#define SLUICE_ACTOR_RPC_POLICY_LOADER_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/catalog/trie.h"

namespace sluice::actor {

struct HeldWeights {
  std::shared_ptr<const void> owner;
  absl::string_view bytes;
};

// Called by one thread, beside the one that samples.
class PolicyLoader {
 public:
  virtual ~PolicyLoader() = default;
  // Prepares for a job; there is no policy until the next Commit.
  virtual absl::Status SetJob(const std::string& model_config_json, std::shared_ptr<const Trie> trie) = 0;
  // Where the next weights are to be written: a shadow copy of the parameter arena, float32 little-endian, while the
  // present one goes on sampling. Valid until Commit, SetJob or EndJob. InvalidArgument: not of `bytes`.
  virtual absl::StatusOr<absl::Span<char>> Stage(uint64_t bytes) = 0;
  // What was staged is verified: the next block is sampled with it.
  virtual absl::Status Commit(uint64_t version) = 0;
  virtual void EndJob() = 0;
  // The bytes of the active version, for other actors: unchanged for as long as their owner is held. Empty: there are
  // none, or they lie where the host cannot read them.
  virtual HeldWeights Active() { return {}; }
};

}  // namespace sluice::actor

#endif  // SLUICE_ACTOR_RPC_POLICY_LOADER_H_
