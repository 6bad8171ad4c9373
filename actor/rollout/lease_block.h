// A lease as the actor works on it, and the job it belongs to. The wire form is
// proto/sluice/v1/rollout.proto; only actor/rpc translates between the two.
#ifndef SLUICE_ACTOR_ROLLOUT_LEASE_BLOCK_H_
#define SLUICE_ACTOR_ROLLOUT_LEASE_BLOCK_H_

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "common/types/group.h"
#include "common/value_search/value_search.h"

namespace sluice::actor {

// How the groups of a job are produced.
struct DecodeSettings {
  SamplerKind sampler = SamplerKind::kBeam;
  int group_size = 16;                            // G
  double temperature = 1;                         // of sampling; beams ignore it
  bool exclude_history = true;                    // of rollouts: no leaf of which all items are in the history
  LogProbSpace beam_space = LogProbSpace::kFull;  // what beams are ordered by
  ValueSearchOptions value_search;                // of SamplerKind::kValueGuided; seed and results are not read
};

// How they are scored.
struct RewardSettings {
  bool enabled = true;  // false: the objective needs no scores
  std::string ranker;
  int negatives = 4;                           // M
  bool mean_of_items = false;                  // a leaf with several items scores as their mean, not the best
  absl::Duration deadline = absl::Seconds(5);  // of one scoring call, retries included
  int history_items = 0;                       // newest distinct items of the history to score leave-one-out
};

// What stays the same over a job's leases.
struct JobContext {
  std::string job_id;
  uint64_t epoch = 0;
  std::string model_config_json;  // config.json of the policy
  std::string catalog_version;
  DecodeSettings decode;
  RewardSettings reward;
};

enum class LeaseKind {
  kRollout,  // sample, score: a ScoredGroup a prompt
  kDecode,   // beams for evaluation: a DecodedPrompt a prompt
  kScore,    // the leaves of each prompt, scored: a ScoredGroup without completions a prompt
};

struct LeasedPrompt {
  Prompt prompt;
  std::vector<int32_t> tokens;  // pre-tokenised prompt; empty: the policy's
                                // encoder makes it from the history
};

// A fixed block of consecutive ordinals, worked on as one batch.
struct LeaseBlock {
  std::string job_id;
  uint64_t epoch = 0;
  uint64_t lease_id = 0;
  LeaseKind kind = LeaseKind::kRollout;
  uint64_t policy_version = 0;
  bool exact_version = false;                    // false: any later version will do
  absl::Time deadline = absl::InfiniteFuture();  // receipt plus the lease's time
  uint64_t seed = 0;                             // of the whole block
  std::vector<LeasedPrompt> prompts;
  int constrained_beams = 0;    // kDecode
  int unconstrained_beams = 0;  // kDecode
};

// A prompt given back without a result.
struct Abandoned {
  std::string reason;     // one sentence
  bool bad_data = false;  // the record itself is bad: another attempt cannot help
};

// What became of one prompt of a block.
struct PromptOutcome {
  uint64_t ordinal = 0;
  uint32_t attempt = 0;
  uint64_t lease_id = 0;
  std::variant<ScoredGroup, DecodedPrompt, Abandoned> result;
};

}  // namespace sluice::actor

#endif  // SLUICE_ACTOR_ROLLOUT_LEASE_BLOCK_H_
