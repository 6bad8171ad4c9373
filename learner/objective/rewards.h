// What the learner makes of a group's scores: one reward a completion. Pure functions on plain arrays; thread-safe.
//
// A score that is missing or not finite is a status, never a number.
#ifndef SLUICE_LEARNER_OBJECTIVE_REWARDS_H_
#define SLUICE_LEARNER_OBJECTIVE_REWARDS_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/types/group.h"
#include "learner/objective/leaf_vectors.h"
#include "learner/options/options.h"

namespace sluice::learner {

// Rewards of one group under one head. G completions, M negatives; raw units of the ranker, all finite.
struct GroupRewards {
  std::vector<double> completions;  // [G], in generation order
  double target = 0;
  std::vector<double> negatives;  // [M]
  std::vector<double> history;    // of the group's history_items, each leave-one-out
};

// Picks the head named in `options` out of a scored group.
// Unavailable: the group has no scores (the message carries its status and error).
// NotFound: the ranker answered without that head; the message lists those that came.
// InvalidArgument: want G completion scores or M negative scores and another number came, or a score is not finite.
absl::StatusOr<GroupRewards> RewardsOf(const ScoredGroup& group, const RewardOptions& options);

// R_rule(e, y*) = 1[e == y*], by trie leaf. Source: ReRe, arXiv 2510.12211.
std::vector<double> RuleRewards(absl::Span<const int32_t> completion_leaves, int32_t target_leaf);

// Penalises negatives by their place in the generation order, so that hard negatives cost most.
//
// Source: ReRe eq. 7-9, restated in MiniOneRec (arXiv 2510.24431). With rho_k = 1, 2, ... the place of completion k:
//   Rt(e_k) = 0 if e_k == y*, else -1 / log(rho_k + 1)
//   R_rank(e_k) = -Rt(e_k) / sum_j Rt(e_j)
// Both signs are negative, so R_rank <= 0, summing to -1 over the negatives under kNegativesOnly; the base of the
// logarithm cancels. Paper and code differ in two ways, see the enums; the defaults follow the code.
//   completion_leaves: [G], most probable first.
//   returns:           [G], 0 for every copy of the target.
std::vector<double> RankingRewards(absl::Span<const int32_t> completion_leaves, int32_t target_leaf,
                                   RankingDenominator denominator = RankingDenominator::kAllSlots,
                                   RankingNoHit no_hit = RankingNoHit::kZero);

// Levels that each completion shares with the target from the first on: [G], 0 to L.
//   completions: [G][L] tokens.  target: [L].
std::vector<int> SharedPrefixes(const std::vector<absl::Span<const int32_t>>& completions,
                                absl::Span<const int32_t> target);

// Semantic reward by prefix: SharedPrefixes / L, 1 for the target itself. A semantic ID's levels go from coarse to
// fine, so the shared prefix is its own measure of likeness and needs no vectors.
std::vector<double> PrefixRewards(const std::vector<absl::Span<const int32_t>>& completions,
                                  absl::Span<const int32_t> target);

// Cosine of two vectors of one length; 0 if one of them has length 0.
double Cosine(absl::Span<const float> a, absl::Span<const float> b);

// ReRe's `semantic` reward: the cosine of the item vectors of completion and target, 1 for the target itself. Source:
// ReRe, arXiv 2510.12211, released code. `vectors` holds every leaf.
std::vector<double> SemanticRewards(absl::Span<const int32_t> completion_leaves, int32_t target_leaf,
                                    const LeafVectors& vectors);

// GRPO-SR's reward gate, in place: r_i = 1[r_i > floor] r_i, which keeps a valid but irrelevant semantic ID from
// earning by being the best of a bad group. Source: GenRec, arXiv 2604.14878. The paper's gate score is not
// specified; here it is the reward itself.
void ApplyFloor(double floor, absl::Span<double> rewards);

// GRPO-SR's calibration, in place: members that are the logged target get the group's largest reward, since a click
// outweighs what the ranker says of it. Source: GenRec, arXiv 2604.14878.
void RaisePositivesToMax(absl::Span<const int32_t> leaves, int32_t target_leaf, absl::Span<double> rewards);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_OBJECTIVE_REWARDS_H_
