#include "learner/job/job.h"

#include <cstddef>

#include "absl/strings/str_cat.h"

namespace sluice::learner {
namespace {

JobTransition Refuse(JobState state, JobWish wish, std::string reason) {
  return {false, false, state, wish, std::move(reason)};
}

JobTransition Keep(JobState state, JobWish wish, std::string reason) {
  return {true, false, state, wish, std::move(reason)};
}

JobTransition Go(JobState state, JobWish wish, std::string reason) {
  return {true, true, state, wish, std::move(reason)};
}

JobTransition Outcome(JobState state, JobWish wish, JobState outcome, absl::string_view name) {
  if (state == outcome) return Keep(state, wish, "already reported");
  if (IsTerminal(state)) {
    return Refuse(state, wish, absl::StrCat("the job already ended as ", JobStateName(state)));
  }
  if (state != JobState::kRunning) {
    return Refuse(state, wish,
                  absl::StrCat("the job is ", JobStateName(state), " and cannot end as ", name, " before it runs"));
  }
  return Go(outcome, wish, std::string(name));
}

}  // namespace

bool IsTerminal(JobState state) {
  return state != JobState::kQueued && state != JobState::kRunning && state != JobState::kPaused;
}

absl::string_view JobStateName(JobState state) {
  switch (state) {
    case JobState::kQueued:
      return "queued";
    case JobState::kRunning:
      return "running";
    case JobState::kPaused:
      return "paused";
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

JobTransition Decide(JobState state, JobWish wish, JobInput input) {
  switch (input) {
    case JobInput::kAssign:
      if (state == JobState::kQueued) return Go(JobState::kRunning, wish, "a group took the job");
      if (state == JobState::kRunning) return Go(state, wish, "a new group takes the job up again");
      if (state == JobState::kPaused) return Refuse(state, wish, "the job is paused; resume it first");
      return Refuse(state, wish, absl::StrCat("the job already ended as ", JobStateName(state)));
    case JobInput::kCancel:
      if (state == JobState::kQueued) return Go(JobState::kCancelled, JobWish::kCancel, "cancelled before it ran");
      if (state == JobState::kPaused)
        return Go(JobState::kCancelled, JobWish::kCancel, "cancelled while it was paused");
      if (state == JobState::kCancelled) return Keep(state, wish, "already cancelled");
      if (IsTerminal(state)) {
        return Refuse(state, wish, absl::StrCat("the job already ended as ", JobStateName(state)));
      }
      if (wish == JobWish::kCancel) return Keep(state, wish, "cancelling already");
      return Go(state, JobWish::kCancel, "the job ends at its next step, with a checkpoint");
    case JobInput::kKill:
      if (state == JobState::kCancelled) return Keep(state, wish, "already ended as cancelled");
      if (IsTerminal(state)) {
        return Refuse(state, wish, absl::StrCat("the job already ended as ", JobStateName(state)));
      }
      return Go(JobState::kCancelled, JobWish::kCancel, "killed: no checkpoint was waited for");
    case JobInput::kPause:
      if (state == JobState::kQueued) return Go(JobState::kPaused, JobWish::kNone, "paused before it ran");
      if (state == JobState::kPaused) return Keep(state, wish, "already paused");
      if (IsTerminal(state)) {
        return Refuse(state, wish, absl::StrCat("the job already ended as ", JobStateName(state)));
      }
      if (wish == JobWish::kCancel) return Refuse(state, wish, "the job is being cancelled");
      if (wish == JobWish::kPause) return Keep(state, wish, "pausing already");
      return Go(state, JobWish::kPause, "the job pauses at its next step, with a checkpoint");
    case JobInput::kResume:
      if (state == JobState::kSucceeded) {
        return Refuse(state, wish, "the job succeeded, and there is nothing to go on with");
      }
      if (IsTerminal(state) || state == JobState::kPaused) {
        return Go(JobState::kQueued, JobWish::kNone, "resumed; it goes on from its last checkpoint");
      }
      // Ranks that stopped already give the job back as after any preemption, and it is queued again.
      if (wish == JobWish::kPause) return Go(state, JobWish::kNone, "the pause is withdrawn");
      if (wish == JobWish::kCancel) {
        return Refuse(state, wish, "the job is being cancelled; resume it once it has ended");
      }
      return Keep(state, wish, "it has not ended");
    case JobInput::kPreempt:
      if (state == JobState::kQueued || state == JobState::kPaused) return Keep(state, wish, "already given back");
      if (IsTerminal(state)) {
        return Refuse(state, wish, absl::StrCat("the job already ended as ", JobStateName(state)));
      }
      // Who asked for the end gets it: the checkpoint of the preemption is the one that cancelling promises.
      if (wish == JobWish::kCancel) return Go(JobState::kCancelled, wish, "cancelled");
      if (wish == JobWish::kPause) return Go(JobState::kPaused, JobWish::kNone, "paused after a checkpoint");
      return Go(JobState::kQueued, JobWish::kNone, "preempted after a checkpoint; it goes on when a group is free");
    case JobInput::kSucceed:
      return Outcome(state, wish, JobState::kSucceeded, "succeeded");
    case JobInput::kFail:
      return Outcome(state, wish, JobState::kFailed, "failed");
    case JobInput::kCancelled:
      return Outcome(state, wish, JobState::kCancelled, "cancelled");
    case JobInput::kHold:
      return Outcome(state, wish, JobState::kHeld, "held");
  }
  return Refuse(state, wish, "unknown input");
}

const JobEvent* FirstCause(const std::vector<JobEvent>& events) {
  // The last assignment in which a step was reported; reports of a later one say nothing yet.
  size_t begin = 0, assigned = 0;
  for (size_t i = 0; i < events.size(); ++i) {
    const auto* state = std::get_if<StateChanged>(&events[i].what);
    if (state != nullptr && state->state == JobState::kRunning) assigned = i;
    if (state != nullptr && state->state == JobState::kQueued) begin = assigned = i;  // resumed: a new story
    if (std::holds_alternative<MetricsPoint>(events[i].what)) begin = assigned;
  }
  const JobEvent* blames = nullptr;
  const JobEvent* outcome = nullptr;
  for (size_t i = begin; i < events.size(); ++i) {
    if (const auto* line = std::get_if<LogLine>(&events[i].what)) {
      if (line->cause == LineCause::kOwn) return &events[i];
      if (line->cause == LineCause::kPeer && blames == nullptr) blames = &events[i];
    }
    const auto* state = std::get_if<StateChanged>(&events[i].what);
    if (state != nullptr && (state->state == JobState::kFailed || state->state == JobState::kHeld)) {
      outcome = &events[i];
    }
  }
  return blames != nullptr ? blames : outcome;
}

}  // namespace sluice::learner
