// A slow decoder to compare the policy with: one sequence at a time, dense causal attention, no packing, no cache,
// written from the published equations with plain tensor calls. Useful for exact comparisons in float64.
#ifndef SLUICE_TESTS_COMMON_MODEL_MODEL_TESTING_H_
#define SLUICE_TESTS_COMMON_MODEL_MODEL_TESTING_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/catalog/trie.h"
#include "common/model/policy.h"

namespace sluice::testing {

// A trie of `items` random semantic IDs of 4 levels, tokens 3 + level * codes + code.
std::shared_ptr<const Trie> RandomTrie(int items, int codes, uint64_t seed);

// A small configuration: width 16, 2 layers, 4 heads of 6 values over 2 key/value heads, vocabulary 3 + 4 * codes.
PolicyConfig SmallConfig(PolicyArchitecture architecture, int codes);
// The same with merged items of `trie`.
PolicyConfig SmallMergedConfig(PolicyArchitecture architecture, int codes, const Trie& trie);

// Random weights large enough that every term of the model matters (a fresh policy's are nearly linear), norms and
// biases included.
std::unique_ptr<Policy> RandomPolicy(const PolicyConfig& config, std::shared_ptr<const Trie> trie, uint64_t seed,
                                     at::ScalarType dtype);

// Copies of a policy's parameters under their Hugging Face names, with requires_grad.
std::map<std::string, at::Tensor> NamedParameters(const Policy& policy);
// The arena's gradient by the same names.
std::map<std::string, at::Tensor> NamedGradients(const Policy& policy);

// Hidden states after the final norm of one whole sequence, [entries, D].
at::Tensor NaiveHidden(const PolicyConfig& config, const Trie* trie,
                       const std::map<std::string, at::Tensor>& parameters, const PromptInput& sequence);
at::Tensor NaiveLogits(const PolicyConfig& config, const std::map<std::string, at::Tensor>& parameters,
                       const at::Tensor& hidden);

}  // namespace sluice::testing

#endif  // SLUICE_TESTS_COMMON_MODEL_MODEL_TESTING_H_
