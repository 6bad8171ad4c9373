// Decoding by value: the search of common/value_search over a policy with a value head. The searches of all prompts
// advance together, one forward pass a look, over one KV cache of growing trees.
#ifndef SLUICE_COMMON_DECODE_VALUE_GUIDED_H_
#define SLUICE_COMMON_DECODE_VALUE_GUIDED_H_

#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/catalog/trie.h"
#include "common/decode/decode.h"
#include "common/model/policy.h"
#include "common/types/group.h"
#include "common/value_search/value_search.h"

namespace sluice {

struct ValueGuidedResult {
  // Distinct, at most ValueSearchOptions::results: highest value first, then most probable.
  std::vector<Completion> completions;
  std::vector<double> values;  // V of each
  Completion target;           // teacher-forced as by Decode; no tokens without a target
  // Rows that this prompt's search put through the policy, at most the budget. What the target alone needed is beside
  // it, as it is beside a beam.
  int forward_tokens = 0;
};

// DecodePrompt::seed is the only source of chance of a prompt, options.seed is not read. Excluded leaves, and prefixes
// that lead nowhere else, are not part of the tree that is searched; log-probabilities recorded do not depend on them.
// FailedPrecondition: the policy has no value head. InvalidArgument: options that ValueSearchOptions::Validate refuses,
// no prompts, excluded leaves not ascending or outside the trie, a trie token outside the policy's vocabulary, a prompt
// that with a whole semantic ID is longer than the policy allows. DataLoss: logits or values that are not finite.
absl::StatusOr<std::vector<ValueGuidedResult>> DecodeByValue(Policy& policy, const Trie& trie,
                                                             absl::Span<const DecodePrompt> prompts,
                                                             const ValueSearchOptions& options);

}  // namespace sluice

#endif  // SLUICE_COMMON_DECODE_VALUE_GUIDED_H_
