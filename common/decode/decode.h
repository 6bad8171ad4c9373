// Decoding semantic IDs: beam search and sampling under the catalog trie, unconstrained beams, teacher-forced
// log-probabilities. All prompts of a call run as one batch: prefilled once, their rows decoded together.
//
// Every log-probability is at temperature 1, over the full vocabulary and, beside it, renormalised over the legal
// children. Runs under c10::InferenceMode. Not thread-safe (one policy, one thread).
#ifndef SLUICE_COMMON_DECODE_DECODE_H_
#define SLUICE_COMMON_DECODE_DECODE_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/catalog/trie.h"
#include "common/model/policy.h"
#include "common/types/group.h"

namespace sluice {

// One prompt's input, and the trie leaves that must not be produced (of its history, say), ascending and distinct.
// Excluded leaves stay legal children: no log-probability depends on them.
struct DecodePrompt {
  PromptInput input;
  std::vector<int32_t> excluded_leaves;
  uint64_t seed = 0;         // of this prompt's samples
  int32_t target_leaf = -1;  // a leaf to score along (teacher forcing); -1: none
};

// What to decode from every prompt. All that is asked for shares one prefill and one batch of rows.
struct DecodePlan {
  int beams = 0;  // width of the constrained beam search; 0: none
  LogProbSpace beam_space = LogProbSpace::kFull;
  int samples = 0;  // independent trie-constrained samples; 0: none
  double temperature = 1;
  int unconstrained_beams = 0;  // 0: none
};

// What came of one prompt.
struct DecodeResult {
  std::vector<Completion> beams;
  std::vector<Completion> samples;
  std::vector<Completion> unconstrained;
  Completion target;  // no tokens without a target
};

// The functions below, for everything in the plan at once. Results are those of the separate calls up to rounding.
// InvalidArgument: nothing in the plan and no target, a width or count below 0, a temperature not above 0, no
// prompts, excluded leaves not ascending or outside the trie, a trie token outside the policy's vocabulary, a prompt
// that Policy::Prefill refuses. DataLoss: logits that are not finite (damaged weights).
absl::StatusOr<std::vector<DecodeResult>> Decode(Policy& policy, const Trie& trie,
                                                 absl::Span<const DecodePrompt> prompts, const DecodePlan& plan);

// The `width` most probable semantic IDs of each prompt by beam search, ordered by sequence log-probability in
// `space` (descending; ties by lower tokens). Fewer if the catalog holds fewer allowed leaves; never an illegal one.
// Result [B][<= width]. InvalidArgument: width < 1, empty prompts.
absl::StatusOr<std::vector<std::vector<Completion>>> ConstrainedBeamSearch(Policy& policy, const Trie& trie,
                                                                           absl::Span<const DecodePrompt> prompts,
                                                                           int width, LogProbSpace space);

// The same without the trie, for `levels` tokens over the whole vocabulary: the beams that hallucination is
// measured on. Completion::leaf is -1 for what is not in the catalog.
absl::StatusOr<std::vector<std::vector<Completion>>> UnconstrainedBeamSearch(Policy& policy, const Trie& trie,
                                                                             absl::Span<const DecodePrompt> prompts,
                                                                             int width);

// `count` independent samples a prompt, trie-constrained, at `temperature` (applied to the logits; recorded
// log-probabilities stay at temperature 1). seeds[b] is the only source of chance of prompt b (DecodePrompt::seed is
// not read), so a prompt's samples do not depend on its batch except through rounding. Duplicates are possible; none
// at all if every leaf is excluded.
absl::StatusOr<std::vector<std::vector<Completion>>> SampleCompletions(Policy& policy, const Trie& trie,
                                                                       absl::Span<const DecodePrompt> prompts,
                                                                       int count, double temperature,
                                                                       absl::Span<const uint64_t> seeds);

// Log-probabilities of given semantic IDs (teacher forcing), `completions[b]` of prompt b. Tokens need not be legal
// under the trie, nor L of them; log_probs_trie is then empty and leaf -1. InvalidArgument: a completion without
// tokens, a token outside the vocabulary, as many lists as prompts not given.
absl::StatusOr<std::vector<std::vector<Completion>>> ScoreCompletions(
    Policy& policy, const Trie& trie, absl::Span<const DecodePrompt> prompts,
    const std::vector<std::vector<std::vector<int32_t>>>& completions);

}  // namespace sluice

#endif  // SLUICE_COMMON_DECODE_DECODE_H_
