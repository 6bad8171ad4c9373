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

// One prompt's input, and the trie leaves that must not be produced (of its history, say), ascending.
struct DecodePrompt {
  PromptInput input;
  std::vector<int32_t> excluded_leaves;
};

// The `width` most probable semantic IDs of each prompt by beam search, ordered by sequence log-probability in
// `space` (descending; ties by lower tokens). Fewer if the catalog holds fewer legal leaves; never an illegal one.
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
// log-probabilities stay at temperature 1). seeds[b] is the only source of chance of prompt b, so a prompt's
// samples do not depend on its batch except through rounding. Duplicates are possible.
absl::StatusOr<std::vector<std::vector<Completion>>> SampleCompletions(Policy& policy, const Trie& trie,
                                                                       absl::Span<const DecodePrompt> prompts,
                                                                       int count, double temperature,
                                                                       absl::Span<const uint64_t> seeds);

// Log-probabilities of given semantic IDs (teacher forcing), `completions[b]` of prompt b. Tokens need not be legal
// under the trie; log_probs_trie is then empty and leaf -1.
absl::StatusOr<std::vector<std::vector<Completion>>> ScoreCompletions(
    Policy& policy, const Trie& trie, absl::Span<const DecodePrompt> prompts,
    const std::vector<std::vector<std::vector<int32_t>>>& completions);

}  // namespace sluice

#endif  // SLUICE_COMMON_DECODE_DECODE_H_
