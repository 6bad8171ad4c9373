// What travels between actor, reward server and learner, as plain data. The wire form is
// proto/sluice/v1/{group,rollout}.proto; only rpc/ folders translate between the two.
//
// Letters: G completions of a prompt, L levels of a semantic ID, M cross-sample negatives.
#ifndef SLUICE_COMMON_TYPES_GROUP_H_
#define SLUICE_COMMON_TYPES_GROUP_H_

#include <cstdint>
#include <string>
#include <vector>

namespace sluice {

// Over which tokens a log-probability is normalised.
enum class LogProbSpace {
  kFull,  // the whole vocabulary
  kTrie,  // the legal children of the prefix, under the catalog version of the group
};

enum class SamplerKind {
  kBeam,    // constrained beam search: G distinct completions, most probable first
  kSample,  // G independent trie-constrained samples, duplicates possible
  // Search of the trie by the policy's value head (V-STAR): at most G distinct completions, highest value first.
  kValueGuided,
  kDynamic,  // G of 1.5 G samples (ReRe): copies of the target first, then as many distinct ones as there are
};

// One generated semantic ID. Log-probabilities are natural, one a token, at temperature 1, under the policy
// that generated it.
struct Completion {
  std::vector<int32_t> tokens;        // [L]
  int32_t leaf = -1;                  // trie leaf; -1: not in the catalog (unconstrained decoding only)
  std::vector<float> log_probs_full;  // [L]
  std::vector<float> log_probs_trie;  // [L]; empty when decoding was unconstrained
};

// A prompt to work on.
struct Prompt {
  uint64_t ordinal = 0;
  uint32_t attempt = 1;              // from 1
  int32_t user = -1;                 // row of the data set; -1: none
  std::vector<int32_t> history;      // item ids, oldest first, already cut to the prompt's window
  int32_t target = -1;               // item id of the logged item that followed; -1: none
  std::vector<int32_t> excluded;     // evaluation: item ids that must not be recommended
  std::vector<int32_t> leaves = {};  // leases that only score: trie leaves, in the order of the answer
};

enum class ScoreStatus {
  kOk,
  kUnavailable,  // no answer before the deadline, retries included
  kInvalid,      // an answer that failed a check: length, ids, finiteness, version
  kRejected,     // the ranker refused the request as bad input
  kNotAsked,     // the objective needs no scores
};

// One named output of the ranker. Present only when the status is kOk; every number is finite.
struct ScoreHead {
  std::string name;
  std::vector<float> completion_scores;  // [G]
  float target_score = 0;
  std::vector<float> negative_scores;      // [M]
  std::vector<float> history_scores = {};  // as many as ScoredGroup::history_items, each leave-one-out
};

// A sampled and, if the status says so, scored group.
struct ScoredGroup {
  uint64_t ordinal = 0;
  uint32_t attempt = 0;
  uint64_t lease_id = 0;
  uint64_t behavior_version = 0;
  std::string catalog_version;
  std::vector<Completion> completions;  // [G], in generation order
  ScoreStatus score_status = ScoreStatus::kNotAsked;
  std::string score_error;
  std::string ranker_version;
  std::vector<ScoreHead> heads;
  std::vector<int32_t> negative_leaves;      // [M] or fewer, if the lease block held too few
  std::vector<float> target_log_probs_full;  // [L]
  std::vector<float> target_log_probs_trie;  // [L]
  double sample_seconds = 0;
  double score_seconds = 0;
  std::vector<int32_t> history_items;  // distinct items of the prompt's history that have scores
};

// Beams of one prompt, for evaluation; each list descending by sequence log-probability.
struct DecodedPrompt {
  uint64_t ordinal = 0;
  uint64_t lease_id = 0;
  uint64_t behavior_version = 0;
  std::vector<Completion> constrained;
  std::vector<Completion> unconstrained;
};

}  // namespace sluice

#endif  // SLUICE_COMMON_TYPES_GROUP_H_
