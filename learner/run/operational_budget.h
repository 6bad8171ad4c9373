// How long a job may train without what it was started for: groups closed for operational reasons (no score, stale,
// unsampled) still train on logged truth, but only so many steps in a row and for so long, or the job becomes silent
// supervised training (design.md 4, "failure has an exit").
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
  OperationalBudget(double share, int max_steps, double max_seconds)
      : share_(share), max_steps_(max_steps), max_seconds_(max_seconds) {}

  // Whether a step of this share counts.
  bool Counts(double closed_share) const { return closed_share > share_; }

  // Takes in one step, which ended at `seconds` of the job's time. Past the budget: HeldError (kHold) or Unavailable
  // (kFail), in words; OK for kNllOnly, which was chosen on purpose.
  // `cause` is what was last seen to go wrong, for the message.
  absl::Status Add(double closed_share, double seconds, OnFailure policy, const std::string& cause = "") {
    if (!Counts(closed_share)) {
      steps_ = 0;
      return absl::OkStatus();
    }
    if (steps_++ == 0) since_ = seconds;
    const bool spent = steps_ > max_steps_ || seconds - since_ > max_seconds_;
    if (!spent || policy == OnFailure::kNllOnly) return absl::OkStatus();
    const std::string message =
        absl::StrCat(steps_, steps_ == 1 ? " step" : " steps", " in a row, over ",
                     static_cast<int64_t>(seconds - since_), " s, had more than ", share_ * 100,
                     " % of their groups closed for operational reasons; see the gate reasons in metrics.jsonl, mend "
                     "the reward server or the actors, and resume",
                     cause.empty() ? "" : absl::StrCat(" (last: ", cause, ")"));
    return policy == OnFailure::kHold ? HeldError(message) : absl::UnavailableError(message);
  }

  int steps() const { return steps_; }
  void Save(std::map<std::string, double>* numbers) const {
    (*numbers)["operational_steps"] = steps_;
    (*numbers)["operational_since"] = since_;
  }
  void Restore(const std::map<std::string, double>& numbers) {
    const auto found = numbers.find("operational_steps");
    steps_ = found == numbers.end() ? 0 : static_cast<int>(found->second);
    const auto since = numbers.find("operational_since");
    since_ = since == numbers.end() ? 0 : since->second;
  }

 private:
  double share_ = 1;
  int max_steps_ = 0;
  double max_seconds_ = 0;
  int steps_ = 0;
  double since_ = 0;  // of the job's time, when the first of them ended
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RUN_OPERATIONAL_BUDGET_H_
