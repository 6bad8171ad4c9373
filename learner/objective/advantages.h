// Advantages: a completion's reward relative to its group. Pure functions on plain arrays; thread-safe.
#ifndef SLUICE_LEARNER_OBJECTIVE_ADVANTAGES_H_
#define SLUICE_LEARNER_OBJECTIVE_ADVANTAGES_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "learner/options/options.h"

namespace sluice::learner {

// Added to the standard deviation, in units of the reward. ReRe, MiniOneRec and V-STAR use this value.
inline constexpr double kAdvantageEpsilon = 1e-4;

struct GroupAdvantages {
  std::vector<double> values;  // [G]
  double mean = 0;             // of the rewards
  double deviation = 0;        // of the rewards, unbiased
  bool zero_variance = false;  // all rewards equal: every advantage is exactly 0
};

// A_i = (R_i - mean) / (std + epsilon), std the UNBIASED sample deviation (ddof 1) over the group; then negative
// ones times `negative_weight`, in [0, 1].
//
// Source: the GRPO core of ReRe, MiniOneRec and V-STAR, as released. The factor is ours: on beams, pushing completions
// down moves mass out of the catalogue, and 0 leaves only the upward moves.
//   rewards: [G], finite. G = 1 has no variance: advantage 0.
GroupAdvantages ZScoreAdvantages(absl::Span<const double> rewards, double negative_weight = 1,
                                 double epsilon = kAdvantageEpsilon);

// In place: a member that is better than the group's mean but worse than the real item gets no push upward, A_i = 0
// where A_i > 0 and R_i < R*. Source: SA-GCPO (OxygenREC, arXiv 2512.22386), the function Gamma.
void BoundByTarget(absl::Span<const double> rewards, double target_reward, absl::Span<double> advantages);

// In place: weighs negative advantages by a soft window around the place in the list at which errors matter for
// Recall@k: x = -|rank - sigma*|, w = min(1, exp((x - threshold) / temperature)), then scaled to mean 1 over the
// negatives. Source: TAWin / WPAUC, arXiv 2604.22504 (temperature 1; sigma* 2 for R@3, 4 for R@5). The paper's `lam`
// is `threshold`; its value is not known to us, 0 makes w = exp(-|rank - sigma*|).
//   ranks: [G] from 1, by the policy's preference.
void WeighNegativesByWindow(absl::Span<const double> ranks, double window_rank, double temperature, double threshold,
                            absl::Span<double> advantages);

// ReCast's pair: +1 for the best hit, -1 for the structurally closest miss, 0 for the rest. Source: ReCast,
// arXiv 2604.22169; its prefix scores 1 / .1 / .01 grow with the shared prefix, which alone decides. Ties go to the
// policy's preference. Without a hit or without a miss all are 0.
//   shared_prefixes: [G] levels shared with the target; `levels` is a hit.  ranks: [G] as above.
std::vector<double> RecastAdvantages(absl::Span<const int> shared_prefixes, int levels, absl::Span<const double> ranks);

// ReCast's repair: which member of a group without a hit gives its place to the target: the one that shares the
// shortest prefix with it, of equals the policy's least preferred. The group is not empty.
size_t LeastSimilar(absl::Span<const int> shared_prefixes, absl::Span<const double> ranks);

// Sibling-GRPO: advantages among the children of one parent prefix instead of over the group, so that members that
// share a prefix do not drown the contrast at each branching. Source: V-STAR, arXiv 2602.10699, eq. 15-19:
//   Rbar(h, v) = mean reward of the members with prefix h and token v
//   A(h, v)    = (Rbar(h, v) - mu_h) / (sigma_h + epsilon), over the children v of h, sigma the POPULATION deviation
// A parent with one child has no contrast: 0. Groups are those of one prompt (the released code mixes prompts).
//   tokens:  [G][L].  rewards: [G].
//   returns: [G][L], the weight of member i's token at level l in the objective, to be divided by nothing else:
//     kPerNode         A / (|members through the node| G): one term a node, eq. 19
//     kPerCandidate    A / G: a node counts as often as members pass through it, the released code
//     kPerActiveToken  A / (tokens whose A is not 0): the released code's mean, taken over the group
std::vector<std::vector<double>> SiblingAdvantages(const std::vector<absl::Span<const int32_t>>& tokens,
                                                   absl::Span<const double> rewards, SiblingMean mean,
                                                   double epsilon = kAdvantageEpsilon);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_OBJECTIVE_ADVANTAGES_H_
