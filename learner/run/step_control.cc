#include "learner/run/step_control.h"

#include <torch/torch.h>

#include <algorithm>

#include "common/status/status.h"

namespace sluice::learner {
namespace {

// The shared share of time is an integer, so that its sum over ranks is exact.
constexpr double kShareUnit = 1e9;

}  // namespace

StepControl::StepControl(const RunContext& context, absl::Duration spent_before)
    : context_(context), started_(context.now()), spent_before_(spent_before) {}

absl::Duration StepControl::spent() const { return spent_before_ + (context_.now() - started_); }

absl::StatusOr<StepDecision> StepControl::Agree() {
  const StopRequest mine = context_.monitor->stop();
  const double limit = context_.options.time_limit_s;
  const bool timed = limit > 0 && context_.is_first();
  const double share = timed ? std::clamp(absl::ToDoubleSeconds(spent()) / limit, 0.0, 1.0) : 0.0;
  at::Tensor votes =
      torch::tensor({mine == StopRequest::kCancel ? int64_t{1} : 0, mine == StopRequest::kPreempt ? int64_t{1} : 0,
                     static_cast<int64_t>(share * kShareUnit)},
                    torch::kLong);
  SLUICE_RETURN_IF_ERROR(context_.collective->AllReduceSum(votes));
  const int64_t* sums = votes.const_data_ptr<int64_t>();
  StepDecision decision;
  if (sums[0] > 0) {
    decision.stop = StopRequest::kCancel;
  } else if (sums[1] > 0) {
    decision.stop = StopRequest::kPreempt;
  }
  decision.time_share = static_cast<double>(sums[2]) / kShareUnit;
  decision.time_is_up = decision.time_share >= 1;
  return decision;
}

double ScheduleProgress(uint64_t step, uint64_t total_steps, double time_share) {
  const double by_steps = total_steps > 0 ? static_cast<double>(step) / static_cast<double>(total_steps) : 1.0;
  return std::clamp(std::max(by_steps, time_share), 0.0, 1.0);
}

}  // namespace sluice::learner
