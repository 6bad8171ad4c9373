#include "learner/objective/control.h"

#include <cmath>
#include <cstddef>
#include <utility>

#include "common/random/random.h"

namespace sluice::learner {

GateSay SayOf(const GroupPlan& plan) {
  if (!plan.has_rewards) return GateSay::kNotAsked;
  return plan.verdict.open ? GateSay::kOpen : GateSay::kClosed;
}

std::vector<double> ControlledAdmission(absl::Span<const GateSay> says, GateControl control, double rate,
                                        uint64_t seed) {
  std::vector<double> admission(says.size(), 0.0);
  std::vector<size_t> asked;
  size_t open = 0;
  for (size_t i = 0; i < says.size(); ++i) {
    if (says[i] == GateSay::kNotAsked) continue;
    asked.push_back(i);
    if (says[i] != GateSay::kOpen) continue;
    ++open;
    if (control == GateControl::kNone) admission[i] = 1;
  }
  if (control == GateControl::kNone || asked.empty()) return admission;
  const double total = static_cast<double>(asked.size());
  if (control == GateControl::kEqualDose) {
    for (const size_t i : asked) admission[i] = rate > 0 ? rate : static_cast<double>(open) / total;
    return admission;
  }
  Random random(seed);
  if (control == GateControl::kThin) {
    std::erase_if(asked, [&](size_t i) { return says[i] != GateSay::kOpen; });
  }
  if (rate > 0) open = static_cast<size_t>(std::floor(rate * total + random.Uniform()));
  // The first `open` places of a Fisher-Yates shuffle: every choice of that size is as likely as any other.
  for (size_t place = 0; place < open && place < asked.size(); ++place) {
    std::swap(asked[place], asked[place + random.Below(asked.size() - place)]);
    admission[asked[place]] = 1;
  }
  return admission;
}

void ApplyControl(double admission, const RlOptions& options, GroupPlan* plan) {
  plan->verdict.open = admission > 0;
  plan->verdict.reason = plan->verdict.open ? GateReason::kControlOpen : GateReason::kControlClosed;
  SetAdmission(admission, options, plan);
}

}  // namespace sluice::learner
