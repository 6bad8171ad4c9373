// What all ranks must agree on before each step: whether to stop, and how far the time budget is spent. One small
// all-reduce, so that no rank leaves the others waiting in a collective.
#ifndef SLUICE_LEARNER_RUN_STEP_CONTROL_H_
#define SLUICE_LEARNER_RUN_STEP_CONTROL_H_

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "learner/run/run_context.h"

namespace sluice::learner {

struct StepDecision {
  StopRequest stop = StopRequest::kNone;
  bool time_is_up = false;
  // Share of the time limit that rank 0 has spent, in [0, 1]; 0 without a limit.
  double time_share = 0;
};

class StepControl {
 public:
  // `spent_before`: time of earlier incarnations of the job, from its checkpoint.
  StepControl(const RunContext& context, absl::Duration spent_before);

  // Collective: every rank calls it at the same place. A cancel on any rank stops all, then a preemption does.
  absl::StatusOr<StepDecision> Agree();

  // ScheduleProgress, which tells people once when the time limit takes over.
  double Progress(double work_share, const StepDecision& decision);

  // Time of this job over all its incarnations, by this rank's clock.
  absl::Duration spent() const;

 private:
  const RunContext& context_;
  const absl::Time started_;
  const absl::Duration spent_before_;
  bool told_of_limit_ = false;
};

// Learning-rate progress in [0, 1]. `work_share`: the share of the job's work that is done. The time limit takes over
// in its second half if the work would outlast it, so that the schedule still reaches its end; a job that keeps an even
// pace and fits its limit never meets it, and so repeats bit by bit however fast the machine is.
double ScheduleProgress(double work_share, double time_share);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RUN_STEP_CONTROL_H_
