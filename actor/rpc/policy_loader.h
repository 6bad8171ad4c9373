// Where verified weights go: what the actor's client needs of the policy that samples. main joins it to
// actor/sampling.
#ifndef SLUICE_ACTOR_RPC_POLICY_LOADER_H_
#define SLUICE_ACTOR_RPC_POLICY_LOADER_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "common/catalog/trie.h"

namespace sluice::actor {

// Called by one thread, beside the one that samples.
class PolicyLoader {
 public:
  virtual ~PolicyLoader() = default;
  // Prepares for a job; there is no policy until the next LoadWeights.
  virtual absl::Status SetJob(const std::string& model_config_json, std::shared_ptr<const Trie> trie) = 0;
  // `payload`: the parameter arena, float32 little-endian, verified. The next block is sampled with it.
  virtual absl::Status LoadWeights(uint64_t version, absl::string_view payload) = 0;
  virtual void EndJob() = 0;
};

}  // namespace sluice::actor

#endif  // SLUICE_ACTOR_RPC_POLICY_LOADER_H_
