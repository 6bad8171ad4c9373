// How long a job may train without what it was started for: groups closed for operational reasons (no score, stale,
// unsampled) still train on logged truth, but only so many steps in a row, or the job becomes silent supervised
// training (design.md 4, "failure has an exit").
#ifndef SLUICE_LEARNER_RUN_OPERATIONAL_BUDGET_H_
#define SLUICE_LEARNER_RUN_OPERATIONAL_BUDGET_H_

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/status/exit_code.h"
#include "learner/options/options.h"

namespace sluice::learner {

class OperationalBudget {
 public:
  OperationalBudget() = default;
  // Steps count whose share of operationally closed groups is above `share`.
  OperationalBudget(double share, int max_steps) : share_(share), max_steps_(max_steps) {}

  // Takes in one step. Past the budget: HeldError (kHold) or Unavailable (kFail), in words; OK for kNllOnly, which
  // was chosen on purpose.
  // `cause` is what was last seen to go wrong, for the message.
  absl::Status Add(double closed_share, OnFailure policy, const std::string& cause = "") {
    steps_ = closed_share > share_ ? steps_ + 1 : 0;
    if (steps_ <= max_steps_ || policy == OnFailure::kNllOnly) return absl::OkStatus();
    const std::string message =
        absl::StrCat(steps_, " steps in a row had more than ", share_ * 100,
                     " % of their groups closed for operational reasons; see the gate reasons in metrics.jsonl, mend "
                     "the reward server or the actors, and resume",
                     cause.empty() ? "" : absl::StrCat(" (last: ", cause, ")"));
    return policy == OnFailure::kHold ? HeldError(message) : absl::UnavailableError(message);
  }

  int steps() const { return steps_; }
  void Save(std::map<std::string, double>* numbers) const { (*numbers)["operational_steps"] = steps_; }
  void Restore(const std::map<std::string, double>& numbers) {
    const auto found = numbers.find("operational_steps");
    steps_ = found == numbers.end() ? 0 : static_cast<int>(found->second);
  }

 private:
  double share_ = 1;
  int max_steps_ = 0;
  int steps_ = 0;
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RUN_OPERATIONAL_BUDGET_H_
