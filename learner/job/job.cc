#include "learner/job/job.h"

#include "absl/strings/str_cat.h"

namespace sluice::learner {
namespace {

JobTransition Refuse(JobState state, bool cancel_requested, std::string reason) {
  return {false, false, state, cancel_requested, std::move(reason)};
}

JobTransition Keep(JobState state, bool cancel_requested, std::string reason) {
  return {true, false, state, cancel_requested, std::move(reason)};
}

JobTransition Go(JobState state, bool cancel_requested, std::string reason) {
  return {true, true, state, cancel_requested, std::move(reason)};
}

JobTransition Outcome(JobState state, bool cancel_requested, JobState outcome, absl::string_view name) {
  if (state == outcome) return Keep(state, cancel_requested, "already reported");
  if (IsTerminal(state)) {
    return Refuse(state, cancel_requested, absl::StrCat("the job already ended as ", JobStateName(state)));
  }
  if (state == JobState::kQueued) {
    return Refuse(state, cancel_requested,
                  absl::StrCat("the job is queued and cannot end as ", name, " before it runs"));
  }
  return Go(outcome, cancel_requested, std::string(name));
}

}  // namespace

bool IsTerminal(JobState state) { return state != JobState::kQueued && state != JobState::kRunning; }

absl::string_view JobStateName(JobState state) {
  switch (state) {
    case JobState::kQueued:
      return "queued";
    case JobState::kRunning:
      return "running";
    case JobState::kSucceeded:
      return "succeeded";
    case JobState::kFailed:
      return "failed";
    case JobState::kCancelled:
      return "cancelled";
    case JobState::kHeld:
      return "held";
  }
  return "unknown";
}

JobTransition Decide(JobState state, bool cancel_requested, JobInput input) {
  switch (input) {
    case JobInput::kAssign:
      if (state == JobState::kQueued) return Go(JobState::kRunning, cancel_requested, "a group took the job");
      if (state == JobState::kRunning) return Go(state, cancel_requested, "a new group takes the job up again");
      return Refuse(state, cancel_requested, absl::StrCat("the job already ended as ", JobStateName(state)));
    case JobInput::kCancel:
      if (state == JobState::kQueued) return Go(JobState::kCancelled, true, "cancelled before it ran");
      if (state == JobState::kCancelled) return Keep(state, cancel_requested, "already cancelled");
      if (IsTerminal(state)) {
        return Refuse(state, cancel_requested, absl::StrCat("the job already ended as ", JobStateName(state)));
      }
      if (cancel_requested) return Keep(state, true, "cancelling already");
      return Go(state, true, "the job ends at its next step, with a checkpoint");
    case JobInput::kResume:
      if (state == JobState::kSucceeded) {
        return Refuse(state, cancel_requested, "the job succeeded, and there is nothing to go on with");
      }
      if (IsTerminal(state)) return Go(JobState::kQueued, false, "resumed; it goes on from its last checkpoint");
      if (cancel_requested) {
        return Refuse(state, cancel_requested, "the job is being cancelled; resume it once it has ended");
      }
      return Keep(state, cancel_requested, "it has not ended");
    case JobInput::kPreempt:
      if (state == JobState::kQueued) return Keep(state, cancel_requested, "already given back");
      if (IsTerminal(state)) {
        return Refuse(state, cancel_requested, absl::StrCat("the job already ended as ", JobStateName(state)));
      }
      // Who asked for the end gets it: the checkpoint of the preemption is the one that cancelling promises.
      if (cancel_requested) return Go(JobState::kCancelled, true, "cancelled");
      return Go(JobState::kQueued, false, "preempted after a checkpoint; it goes on when a group is free");
    case JobInput::kSucceed:
      return Outcome(state, cancel_requested, JobState::kSucceeded, "succeeded");
    case JobInput::kFail:
      return Outcome(state, cancel_requested, JobState::kFailed, "failed");
    case JobInput::kCancelled:
      return Outcome(state, cancel_requested, JobState::kCancelled, "cancelled");
    case JobInput::kHold:
      return Outcome(state, cancel_requested, JobState::kHeld, "held");
  }
  return Refuse(state, cancel_requested, "unknown input");
}

}  // namespace sluice::learner
