#include "learner/job/job.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace sluice::learner {
namespace {

constexpr JobState kStates[] = {JobState::kQueued, JobState::kRunning,   JobState::kPaused, JobState::kSucceeded,
                                JobState::kFailed, JobState::kCancelled, JobState::kHeld};
constexpr JobInput kInputs[] = {JobInput::kAssign, JobInput::kCancel,    JobInput::kPreempt, JobInput::kSucceed,
                                JobInput::kFail,   JobInput::kCancelled, JobInput::kHold,    JobInput::kResume,
                                JobInput::kKill,   JobInput::kPause};

TEST(JobTest, AJobRunsAndEnds) {
  const JobTransition assigned = Decide(JobState::kQueued, JobWish::kNone, JobInput::kAssign);
  EXPECT_TRUE(assigned.allowed && assigned.changed);
  EXPECT_EQ(assigned.state, JobState::kRunning);
  EXPECT_EQ(Decide(JobState::kRunning, JobWish::kNone, JobInput::kSucceed).state, JobState::kSucceeded);
  EXPECT_EQ(Decide(JobState::kRunning, JobWish::kNone, JobInput::kHold).state, JobState::kHeld);
}

TEST(JobTest, NothingButResumingLeavesATerminalState) {
  for (const JobState state : kStates) {
    if (!IsTerminal(state)) continue;
    for (const JobInput input : kInputs) {
      if (input == JobInput::kResume) continue;
      const JobTransition transition = Decide(state, JobWish::kNone, input);
      EXPECT_EQ(transition.state, state);
      EXPECT_FALSE(transition.changed);
    }
  }
}

TEST(JobTest, EveryInputMayBeRepeated) {
  // A report whose answer was lost comes again: it must be taken, and change nothing.
  for (const JobState state : kStates) {
    for (const JobInput input : kInputs) {
      const JobTransition first = Decide(state, JobWish::kNone, input);
      if (!first.changed || input == JobInput::kAssign) continue;
      const JobTransition again = Decide(first.state, first.wish, input);
      EXPECT_TRUE(again.allowed) << JobStateName(state);
      EXPECT_FALSE(again.changed) << JobStateName(state);
    }
  }
}

TEST(JobTest, EveryDecisionSaysWhy) {
  for (const JobState state : kStates) {
    for (const JobWish wish : {JobWish::kNone, JobWish::kCancel, JobWish::kPause}) {
      for (const JobInput input : kInputs) EXPECT_FALSE(Decide(state, wish, input).reason.empty());
    }
  }
}

TEST(JobTest, CancellingAQueuedJobEndsItAndARunningOneOnlyAsks) {
  EXPECT_EQ(Decide(JobState::kQueued, JobWish::kNone, JobInput::kCancel).state, JobState::kCancelled);
  const JobTransition asked = Decide(JobState::kRunning, JobWish::kNone, JobInput::kCancel);
  EXPECT_EQ(asked.state, JobState::kRunning);
  EXPECT_TRUE(asked.wish == JobWish::kCancel && asked.changed);
}

TEST(JobTest, CancellingAnEndedJobIsRefusedUnlessItIsCancelled) {
  EXPECT_FALSE(Decide(JobState::kSucceeded, JobWish::kNone, JobInput::kCancel).allowed);
  EXPECT_TRUE(Decide(JobState::kCancelled, JobWish::kCancel, JobInput::kCancel).allowed);
}

TEST(JobTest, APreemptedJobWaitsAgainUnlessItsEndWasAskedFor) {
  EXPECT_EQ(Decide(JobState::kRunning, JobWish::kNone, JobInput::kPreempt).state, JobState::kQueued);
  EXPECT_EQ(Decide(JobState::kRunning, JobWish::kCancel, JobInput::kPreempt).state, JobState::kCancelled);
}

TEST(JobTest, WhatEndedEarlyMayBeResumed) {
  for (const JobState state : {JobState::kFailed, JobState::kHeld, JobState::kCancelled}) {
    const JobTransition resumed = Decide(state, JobWish::kCancel, JobInput::kResume);
    EXPECT_EQ(resumed.state, JobState::kQueued);
    EXPECT_EQ(resumed.wish, JobWish::kNone);
  }
  EXPECT_FALSE(Decide(JobState::kSucceeded, JobWish::kNone, JobInput::kResume).allowed);
  EXPECT_FALSE(Decide(JobState::kRunning, JobWish::kCancel, JobInput::kResume).allowed);  // its end was asked for first
  EXPECT_FALSE(Decide(JobState::kRunning, JobWish::kNone, JobInput::kResume).changed);
}

TEST(JobTest, AnOutcomeBeforeTheRunIsRefused) {
  const JobTransition transition = Decide(JobState::kQueued, JobWish::kNone, JobInput::kSucceed);
  EXPECT_FALSE(transition.allowed);
  EXPECT_EQ(transition.reason, "the job is queued and cannot end as succeeded before it runs");
}

TEST(JobTest, PausingStopsAWaitingJobAtOnceAndARunningOneAfterItsCheckpoint) {
  EXPECT_EQ(Decide(JobState::kQueued, JobWish::kNone, JobInput::kPause).state, JobState::kPaused);
  const JobTransition asked = Decide(JobState::kRunning, JobWish::kNone, JobInput::kPause);
  EXPECT_EQ(asked.state, JobState::kRunning);
  EXPECT_EQ(asked.wish, JobWish::kPause);
  const JobTransition given_back = Decide(JobState::kRunning, asked.wish, JobInput::kPreempt);
  EXPECT_EQ(given_back.state, JobState::kPaused);
  EXPECT_EQ(given_back.wish, JobWish::kNone);
}

TEST(JobTest, APausedJobIsTakenByNoGroupAndGoesOnWhenItIsResumed) {
  EXPECT_FALSE(IsTerminal(JobState::kPaused));
  EXPECT_FALSE(Decide(JobState::kPaused, JobWish::kNone, JobInput::kAssign).allowed);
  EXPECT_EQ(Decide(JobState::kPaused, JobWish::kNone, JobInput::kResume).state, JobState::kQueued);
  EXPECT_EQ(Decide(JobState::kPaused, JobWish::kNone, JobInput::kCancel).state, JobState::kCancelled);
}

TEST(JobTest, APauseMayBeWithdrawnAndACancelWins) {
  EXPECT_EQ(Decide(JobState::kRunning, JobWish::kPause, JobInput::kResume).wish, JobWish::kNone);
  EXPECT_EQ(Decide(JobState::kRunning, JobWish::kPause, JobInput::kCancel).wish, JobWish::kCancel);
  EXPECT_FALSE(Decide(JobState::kRunning, JobWish::kCancel, JobInput::kPause).allowed);
}

TEST(JobTest, AKillEndsWhateverHasNotEnded) {
  for (const JobState state : {JobState::kQueued, JobState::kRunning, JobState::kPaused}) {
    EXPECT_EQ(Decide(state, JobWish::kNone, JobInput::kKill).state, JobState::kCancelled);
  }
  EXPECT_FALSE(Decide(JobState::kSucceeded, JobWish::kNone, JobInput::kKill).allowed);
}

class FirstCauseTest : public testing::Test {
 protected:
  void Add(decltype(JobEvent::what) what) {
    events_.push_back({events_.size() + 1, absl::FromUnixSeconds(1700000000), std::move(what)});
  }
  void Assigned() { Add(StateChanged{JobState::kRunning, "a group took the job", 0}); }
  void Step() { Add(MetricsPoint{1, 9, {{"loss", 1}}}); }
  void Line(const std::string& text, int rank, LineCause cause) { Add(LogLine{"error", text, "learner", rank, cause}); }
  std::string Cause() const {
    const JobEvent* event = FirstCause(events_);
    if (event == nullptr) return "none";
    const auto* line = std::get_if<LogLine>(&event->what);
    return line != nullptr ? line->text : std::get<StateChanged>(event->what).message;
  }

  std::vector<JobEvent> events_;
};

TEST_F(FirstCauseTest, TheRankWhereItBeganIsNamedThoughOthersTellOfItFirst) {
  Assigned(), Step();
  Line("the group broke", 0, LineCause::kPeer);
  Line("data.npy is damaged", 1, LineCause::kOwn);
  Line("the group broke too", 2, LineCause::kPeer);
  Add(StateChanged{JobState::kFailed, "the last word", 3});
  EXPECT_EQ(Cause(), "data.npy is damaged");
}

TEST_F(FirstCauseTest, OfSeveralOwnCausesTheFirstCounts) {
  Assigned(), Step();
  Line("first", 1, LineCause::kOwn), Line("second", 0, LineCause::kOwn);
  EXPECT_EQ(Cause(), "first");
}

TEST_F(FirstCauseTest, WhatAJobGotOverIsNotItsCause) {
  Assigned(), Step();
  Line("an old trouble", 1, LineCause::kOwn);
  Assigned(), Step();
  EXPECT_EQ(Cause(), "none");
  Line("the new one", 0, LineCause::kOwn);
  Add(StateChanged{JobState::kFailed, "failed", 1});
  EXPECT_EQ(Cause(), "the new one");
}

TEST_F(FirstCauseTest, GroupsThatAreLostWithoutAStepInBetweenAreOneStory) {
  Assigned(), Step();
  Line("rank 1 was lost", 1, LineCause::kOwn);
  Assigned();
  Line("rank 0 cannot read", 0, LineCause::kOwn);
  Add(StateChanged{JobState::kFailed, "lost twice", 11});
  EXPECT_EQ(Cause(), "rank 1 was lost");
}

TEST_F(FirstCauseTest, WithoutALineTheOutcomeIsTheCause) {
  Assigned();
  Add(StateChanged{JobState::kFailed, "no such data", 3});
  EXPECT_EQ(Cause(), "no such data");
  Line("the group broke", 0, LineCause::kPeer);
  EXPECT_EQ(Cause(), "the group broke");
  Add(StateChanged{JobState::kQueued, "resumed", 0});
  EXPECT_EQ(Cause(), "none");
}

}  // namespace
}  // namespace sluice::learner
