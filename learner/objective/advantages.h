// Advantages: a completion's reward relative to its group. Pure functions on plain arrays; thread-safe.
#ifndef SLUICE_LEARNER_OBJECTIVE_ADVANTAGES_H_
#define SLUICE_LEARNER_OBJECTIVE_ADVANTAGES_H_

#include <vector>

#include "absl/types/span.h"

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

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_OBJECTIVE_ADVANTAGES_H_
