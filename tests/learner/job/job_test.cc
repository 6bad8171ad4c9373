#include "learner/job/job.h"

#include <gtest/gtest.h>

namespace sluice::learner {
namespace {

constexpr JobState kStates[] = {JobState::kQueued, JobState::kRunning,   JobState::kSucceeded,
                                JobState::kFailed, JobState::kCancelled, JobState::kHeld};
constexpr JobInput kInputs[] = {JobInput::kAssign, JobInput::kCancel,    JobInput::kPreempt, JobInput::kSucceed,
                                JobInput::kFail,   JobInput::kCancelled, JobInput::kHold,    JobInput::kResume};

TEST(JobTest, AJobRunsAndEnds) {
  const JobTransition assigned = Decide(JobState::kQueued, false, JobInput::kAssign);
  EXPECT_TRUE(assigned.allowed && assigned.changed);
  EXPECT_EQ(assigned.state, JobState::kRunning);
  EXPECT_EQ(Decide(JobState::kRunning, false, JobInput::kSucceed).state, JobState::kSucceeded);
  EXPECT_EQ(Decide(JobState::kRunning, false, JobInput::kHold).state, JobState::kHeld);
}

TEST(JobTest, NothingButResumingLeavesATerminalState) {
  for (const JobState state : kStates) {
    if (!IsTerminal(state)) continue;
    for (const JobInput input : kInputs) {
      if (input == JobInput::kResume) continue;
      const JobTransition transition = Decide(state, false, input);
      EXPECT_EQ(transition.state, state);
      EXPECT_FALSE(transition.changed);
    }
  }
}

TEST(JobTest, EveryInputMayBeRepeated) {
  // A report whose answer was lost comes again: it must be taken, and change nothing.
  for (const JobState state : kStates) {
    for (const JobInput input : kInputs) {
      const JobTransition first = Decide(state, false, input);
      if (!first.changed || input == JobInput::kAssign) continue;
      const JobTransition again = Decide(first.state, first.cancel_requested, input);
      EXPECT_TRUE(again.allowed) << JobStateName(state);
      EXPECT_FALSE(again.changed) << JobStateName(state);
    }
  }
}

TEST(JobTest, EveryDecisionSaysWhy) {
  for (const JobState state : kStates) {
    for (const bool cancel : {false, true}) {
      for (const JobInput input : kInputs) EXPECT_FALSE(Decide(state, cancel, input).reason.empty());
    }
  }
}

TEST(JobTest, CancellingAQueuedJobEndsItAndARunningOneOnlyAsks) {
  EXPECT_EQ(Decide(JobState::kQueued, false, JobInput::kCancel).state, JobState::kCancelled);
  const JobTransition asked = Decide(JobState::kRunning, false, JobInput::kCancel);
  EXPECT_EQ(asked.state, JobState::kRunning);
  EXPECT_TRUE(asked.cancel_requested && asked.changed);
}

TEST(JobTest, CancellingAnEndedJobIsRefusedUnlessItIsCancelled) {
  EXPECT_FALSE(Decide(JobState::kSucceeded, false, JobInput::kCancel).allowed);
  EXPECT_TRUE(Decide(JobState::kCancelled, true, JobInput::kCancel).allowed);
}

TEST(JobTest, APreemptedJobWaitsAgainUnlessItsEndWasAskedFor) {
  EXPECT_EQ(Decide(JobState::kRunning, false, JobInput::kPreempt).state, JobState::kQueued);
  EXPECT_EQ(Decide(JobState::kRunning, true, JobInput::kPreempt).state, JobState::kCancelled);
}

TEST(JobTest, WhatEndedEarlyMayBeResumed) {
  for (const JobState state : {JobState::kFailed, JobState::kHeld, JobState::kCancelled}) {
    const JobTransition resumed = Decide(state, true, JobInput::kResume);
    EXPECT_EQ(resumed.state, JobState::kQueued);
    EXPECT_FALSE(resumed.cancel_requested);
  }
  EXPECT_FALSE(Decide(JobState::kSucceeded, false, JobInput::kResume).allowed);
  EXPECT_FALSE(Decide(JobState::kRunning, true, JobInput::kResume).allowed);  // its end was asked for first
  EXPECT_FALSE(Decide(JobState::kRunning, false, JobInput::kResume).changed);
}

TEST(JobTest, AnOutcomeBeforeTheRunIsRefused) {
  const JobTransition transition = Decide(JobState::kQueued, false, JobInput::kSucceed);
  EXPECT_FALSE(transition.allowed);
  EXPECT_EQ(transition.reason, "the job is queued and cannot end as succeeded before it runs");
}

}  // namespace
}  // namespace sluice::learner
