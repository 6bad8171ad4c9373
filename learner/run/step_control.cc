#include "learner/run/step_control.h"

#include <torch/types.h>

#include <algorithm>

#include "absl/strings/str_format.h"
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

double StepControl::Progress(double work_share, const StepDecision& decision) {
  const double progress = ScheduleProgress(work_share, decision.time_share);
  if (progress > work_share && !told_of_limit_) {
    told_of_limit_ = true;
    if (context_.is_first()) {
      context_.monitor->ReportLog(absl::StrFormat(
          "at %.0f %% of the work and %.0f %% of time_limit_s: from here on the limit sets the learning rate, so this "
          "run depends on the machine's speed",
          100 * work_share, 100 * decision.time_share));
    }
  }
  return progress;
}

// From half of the limit to all of it, time's progress goes from 0 to 1: twice as fast as an even pace would.
double ScheduleProgress(double work_share, double time_share) {
  return std::clamp(std::max(work_share, 2 * time_share - 1), 0.0, 1.0);
}

}  // namespace sluice::learner
