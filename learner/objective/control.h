// Controls of the gate: what an arm without the gate's choice of samples, but with its dose, would have admitted.
// Without them a gain of the gate cannot be told from a gain of less reward. Pure functions; thread-safe.
#ifndef SLUICE_LEARNER_OBJECTIVE_CONTROL_H_
#define SLUICE_LEARNER_OBJECTIVE_CONTROL_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "learner/objective/judge.h"
#include "learner/options/options.h"

namespace sluice::learner {

// What the gate said of one group of a step. As numbers, so that ranks can add up arrays that are 0 elsewhere.
enum class GateSay : int {
  kNotAsked = 0,  // closed for operational reasons, or no group: no control opens it
  kClosed = 1,
  kOpen = 2,
};

GateSay SayOf(const GroupPlan& plan);

// Admission of every group of one step, in [0, 1]; 0 where the gate was not asked.
//   kNone       1 where open
//   kRandom     the step's own values in a random order over the groups that were asked: the same rate, another
//               choice. With a rate: round(rate n) of the n asked ones, rounded up or down by chance so that the mean
//               is exact
//   kThin       of the groups that the gate opened a random choice of rate n, rounded as above, all if there are fewer:
//               one gate's choice at another gate's rate
//   kEqualDose  the same weight for all that were asked: the share that the gate opened, or the given rate
//   says: [groups of the step], in ordinal order over all ranks, so that the outcome does not depend on their number.
//   rate: 0: the step's own.  seed: of this step; the only source of chance.
std::vector<double> ControlledAdmission(absl::Span<const GateSay> says, GateControl control, double rate,
                                        uint64_t seed);

// Puts a control's admission into a plan that the gate judged: verdict, reason and weights. The diagnostics stay.
void ApplyControl(double admission, const RlOptions& options, GroupPlan* plan);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_OBJECTIVE_CONTROL_H_
