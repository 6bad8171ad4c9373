#include "learner/train/value_term.h"

#include <torch/types.h>

#include "common/status/status.h"
#include "learner/objective/step_rewards.h"

namespace sluice::learner {

ValueTermResult ValueTerm(const Policy& policy, const at::Tensor& hidden, absl::Span<const ValuedBranch> branches,
                          const ValueTermSettings& settings) {
  std::vector<int64_t> rows;
  for (const ValuedBranch& branch : branches) {
    SLUICE_CHECK(branch.rows.size() == branch.step_rewards.size(), "one row a step reward");
    rows.insert(rows.end(), branch.rows.begin(), branch.rows.end());
  }
  SLUICE_CHECK(settings.count >= static_cast<double>(rows.size()), "the denominator counts every value");
  const at::Tensor chosen = torch::tensor(rows, torch::kLong).to(hidden.device());
  const at::Tensor values = policy.Values(hidden.index_select(0, chosen));
  const at::Tensor in_double = values.detach().to(torch::kCPU, torch::kDouble).contiguous();
  const absl::Span<const double> numbers(in_double.const_data_ptr<double>(), rows.size());

  std::vector<double> targets;
  for (const ValuedBranch& branch : branches) {
    const std::vector<double> of_branch =
        TemporalDifferenceTargets(branch.step_rewards, numbers.subspan(targets.size(), branch.rows.size()),
                                  settings.gamma, settings.bootstrap, branch.first_token_right);
    targets.insert(targets.end(), of_branch.begin(), of_branch.end());
  }
  const ValueLoss loss = SquaredValueLoss(numbers, targets);
  ValueTermResult result;
  result.count = static_cast<double>(rows.size());
  result.squared_errors = loss.value * result.count;
  // The mean here is over these values, the step's over all.
  const at::Tensor slopes =
      torch::tensor(loss.slopes, torch::kDouble) * (settings.weight * result.count / settings.count);
  result.loss = (slopes.to(values.options()) * values).sum();
  return result;
}

}  // namespace sluice::learner
