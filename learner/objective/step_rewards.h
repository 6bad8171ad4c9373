// Dense step rewards and temporal-difference targets of V-STAR's value function: they train the value, never the
// policy. Source: V-STAR, arXiv 2602.10699, section 4.1 as digested, and its released code. Pure functions;
// thread-safe.
#ifndef SLUICE_LEARNER_OBJECTIVE_STEP_REWARDS_H_
#define SLUICE_LEARNER_OBJECTIVE_STEP_REWARDS_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "learner/options/options.h"

namespace sluice::learner {

// The weights of L levels' step rewards: numbers separated by spaces, one a level. Empty: V-STAR's .3, .5, 1 for three
// levels, 1 for further ones (a last level that tells items of one semantic ID apart is worth what they are), the last
// of them for fewer.
// InvalidArgument: not L finite numbers of at least 0.
absl::StatusOr<std::vector<double>> ParseStepWeights(absl::string_view text, int levels);

// r_l = w_l if y_<=l == y*_<=l, else -w_l (1 - cos(e(y_<=l), e(y*))). A vector of length 0 has cosine 0 to all.
//   completions: [G][L] tokens.  target: [L].  embeddings: [G][E] of the completions' items.  target_embedding: [E].
//   weights: [L], V-STAR: .3, .5, 1.
//   returns: [G][L].
std::vector<std::vector<double>> StepRewards(const std::vector<absl::Span<const int32_t>>& completions,
                                             absl::Span<const int32_t> target,
                                             const std::vector<absl::Span<const float>>& embeddings,
                                             absl::Span<const float> target_embedding, absl::Span<const double> weights,
                                             StepEmbedding embedding = StepEmbedding::kPrefixMean);

// Targets of V(s_1) .. V(s_L), with V(s_{l+1}) held constant; V(s_l) is read at the prefix's last token.
//   rewards, values: [L].
std::vector<double> TemporalDifferenceTargets(absl::Span<const double> rewards, absl::Span<const double> values,
                                              double gamma, Bootstrap bootstrap, bool first_token_right);

struct ValueLoss {
  double value = 0;            // mean of (V - y)^2
  std::vector<double> slopes;  // d value / d V, targets held constant
};
// values and targets: of all levels of all completions that count, at least one.
ValueLoss SquaredValueLoss(absl::Span<const double> values, absl::Span<const double> targets);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_OBJECTIVE_STEP_REWARDS_H_
