#include "learner/coordinator/coordinator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <set>

#include "absl/strings/str_cat.h"
#include "common/file/file.h"

namespace sluice::learner {
namespace {

using ::testing::HasSubstr;

class CoordinatorTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = absl::StrCat(testing::TempDir(), "/coordinator_XXXXXX");
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
    options_.ranks = 2;
    Restart();
  }
  void TearDown() override {
    coordinator_.reset();
    store_.reset();
    EXPECT_TRUE(RemoveAll(folder_).ok());
  }

  // As after a crash of the coordinator: only the file is left.
  void Restart() {
    coordinator_.reset();
    store_.reset();
    store_ = JobStore::Open(JoinPath(folder_, "jobs.db"), {}).value();
    const NowFunction now = [this] { return now_; };
    auto coordinator = Coordinator::Create(options_, store_.get(), now, now);
    ASSERT_TRUE(coordinator.ok()) << coordinator.status();
    coordinator_ = *std::move(coordinator);
  }

  void Join(const std::string& id) { ASSERT_TRUE(coordinator_->Join(id, absl::StrCat(id, ":7090"), "host").ok()); }
  absl::StatusOr<GroupView> Beat(const std::string& id, uint32_t actors = 0, uint32_t waiting_blocks = 0) {
    Heartbeat heartbeat;
    heartbeat.member_id = id;
    heartbeat.actors = actors;
    heartbeat.waiting_blocks = waiting_blocks;
    heartbeat.leaving = leaving_.count(id) > 0;
    return coordinator_->Beat(heartbeat);
  }
  void AnnounceLeaving(const std::string& id) {
    leaving_.insert(id);
    ASSERT_TRUE(Beat(id).ok());
  }
  GroupView View(const std::string& id) { return Beat(id).value(); }
  std::string Submit(const std::string& request) {
    return coordinator_->Submit({request, request, 2, "spec", "yaml", "digest"}).value().job_id;
  }
  JobState StateOf(const std::string& id) { return store_->Get(id)->state; }
  // Time passes in small steps while the named members are heard.
  void Pass(absl::Duration time, const std::vector<std::string>& heard) {
    for (absl::Duration passed; passed < time; passed += absl::Milliseconds(500)) {
      now_ += absl::Milliseconds(500);
      for (const std::string& id : heard) EXPECT_TRUE(Beat(id).ok());
      coordinator_->Tick();
    }
  }
  absl::Status Finish(const std::string& job, uint64_t epoch, JobInput outcome) {
    return coordinator_->Finish(job, epoch, outcome, "done", 0);
  }

  absl::Time now_ = absl::FromUnixSeconds(1700000000);
  std::string folder_;
  CoordinatorOptions options_;
  std::set<std::string> leaving_;
  std::unique_ptr<JobStore> store_;
  std::unique_ptr<Coordinator> coordinator_;
};

TEST_F(CoordinatorTest, TheGroupFormsWhenAllRanksAreThere) {
  Join("a");
  EXPECT_EQ(View("a").epoch, 0u);
  Join("b");
  EXPECT_EQ(View("a").epoch, 1u);
  EXPECT_EQ(View("a").rank, 0);
  EXPECT_EQ(View("b").rank, 1);
  EXPECT_EQ(View("b").world_size, 2);
}

TEST_F(CoordinatorTest, WhoComesTooManyStandsBy) {
  Join("a"), Join("b"), Join("c");
  EXPECT_EQ(View("c").epoch, 0u);
  EXPECT_EQ(View("c").rank, -1);
  EXPECT_EQ(View("a").epoch, 1u);
}

TEST_F(CoordinatorTest, JoiningAgainChangesNothing) {
  Join("a"), Join("b"), Join("a");
  EXPECT_EQ(View("a").epoch, 1u);
  EXPECT_EQ(coordinator_->Snapshot().members.size(), 2u);
}

TEST_F(CoordinatorTest, AnUnknownMemberIsToJoin) { EXPECT_EQ(Beat("x").status().code(), absl::StatusCode::kAborted); }

TEST_F(CoordinatorTest, ASilentMemberIsLostAndTheOneStandingByTakesOver) {
  Join("a"), Join("b"), Join("c");
  Pass(absl::Seconds(6), {"b", "c"});
  EXPECT_EQ(Beat("a").status().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(View("b").epoch, 2u);
  EXPECT_EQ(View("b").rank, 0);
  EXPECT_EQ(View("c").rank, 1);
}

TEST_F(CoordinatorTest, HeartbeatsKeepAMemberForEver) {
  Join("a"), Join("b");
  Pass(absl::Minutes(2), {"a", "b"});
  EXPECT_EQ(View("a").epoch, 1u);
}

TEST_F(CoordinatorTest, ALostGroupComesBackUnderALaterEpochOnly) {
  Join("a"), Join("b");
  Pass(absl::Seconds(6), {"a"});
  EXPECT_EQ(View("a").epoch, 0u);
  Join("b");  // the same process, after a network fault: its collective is gone all the same
  EXPECT_EQ(View("a").epoch, 2u);
  EXPECT_EQ(View("b").epoch, 2u);
}

TEST_F(CoordinatorTest, APauseOfTheCoordinatorIsNotBlamedOnMembers) {
  Join("a"), Join("b");
  now_ += absl::Minutes(10);  // the machine slept; heartbeats still wait in the sockets
  coordinator_->Tick();
  EXPECT_EQ(View("a").epoch, 1u);
  EXPECT_EQ(View("b").epoch, 1u);
}

TEST_F(CoordinatorTest, JobsRunOneAfterTheOtherInTheirOrder) {
  const std::string first = Submit("first"), second = Submit("second");
  EXPECT_EQ(StateOf(first), JobState::kQueued);
  Join("a"), Join("b");
  EXPECT_EQ(View("a").job->id, first);
  EXPECT_EQ(View("b").job->id, first);
  EXPECT_EQ(StateOf(second), JobState::kQueued);
  ASSERT_TRUE(Finish(first, 1, JobInput::kSucceed).ok());
  EXPECT_EQ(StateOf(first), JobState::kSucceeded);
  EXPECT_EQ(View("a").job->id, second);
}

TEST_F(CoordinatorTest, AJobSubmittedToAnIdleGroupRunsAtOnce) {
  Join("a"), Join("b");
  EXPECT_EQ(View("a").job, nullptr);
  const std::string job = Submit("job");
  EXPECT_EQ(View("a").job->id, job);
  EXPECT_EQ(StateOf(job), JobState::kRunning);
}

TEST_F(CoordinatorTest, TheOutcomeMayBeReportedTwice) {
  const std::string job = Submit("job");
  Join("a"), Join("b");
  ASSERT_TRUE(Finish(job, 1, JobInput::kFail).ok());
  EXPECT_TRUE(Finish(job, 1, JobInput::kFail).ok());
  EXPECT_EQ(Finish(job, 1, JobInput::kSucceed).code(), absl::StatusCode::kAborted);
  EXPECT_EQ(StateOf(job), JobState::kFailed);
}

TEST_F(CoordinatorTest, AnOldEpochCannotEndOrAdvanceAJob) {
  const std::string job = Submit("job");
  Join("a"), Join("b"), Join("c");
  Pass(absl::Seconds(6), {"b", "c"});  // epoch 2
  EXPECT_EQ(View("b").job->id, job);
  EXPECT_EQ(Finish(job, 1, JobInput::kSucceed).code(), absl::StatusCode::kAborted);
  EXPECT_EQ(coordinator_->ReserveVersion(job, 1).status().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(coordinator_->ReserveOrdinals(job, 1, 1, 0, 8).code(), absl::StatusCode::kAborted);
  JobReport report;
  report.epoch = 1;
  report.report_id = "late";
  EXPECT_EQ(coordinator_->Report(job, report).status().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(coordinator_->ReserveVersion(job, 2).value(), 1u);
  EXPECT_TRUE(Finish(job, 2, JobInput::kSucceed).ok());
}

TEST_F(CoordinatorTest, AVersionThatIsAskedForTwiceIsOne) {
  const std::string job = Submit("job");
  Join("a"), Join("b");
  ASSERT_EQ(View("a").job->id, job);
  EXPECT_EQ(coordinator_->ReserveVersion(job, 1, 7).value(), 8u);
  EXPECT_EQ(coordinator_->ReserveVersion(job, 1, 7).value(), 8u);
  EXPECT_EQ(coordinator_->ReserveVersion(job, 1, 8).value(), 9u);
  EXPECT_EQ(coordinator_->ReserveVersion(job, 1, 7).value(), 10u);  // late, and no version is given out twice
  Join("c");
  Pass(absl::Seconds(6), {"b", "c"});
  // The next epoch goes back to the checkpoint of version 8: those above it belong to what is abandoned.
  EXPECT_EQ(coordinator_->ReserveVersion(job, 2, 8).value(), 11u);
  EXPECT_EQ(coordinator_->ReserveVersion(job, 2, 8).value(), 11u);
  EXPECT_EQ(coordinator_->ReserveVersion(job, 1, 9).status().code(), absl::StatusCode::kAborted);
}

TEST_F(CoordinatorTest, ARestartOfTheCoordinatorIsNoNewEpoch) {
  const std::string job = Submit("job");
  Join("a"), Join("b");
  ASSERT_EQ(View("a").job->id, job);
  Restart();
  now_ += absl::Seconds(1);
  EXPECT_EQ(View("a").epoch, 1u);  // its next heartbeat, without joining again
  EXPECT_EQ(View("a").job->id, job);
  EXPECT_EQ(View("b").rank, 1);
  EXPECT_EQ(coordinator_->AttachActor("actor", {}).value(), "a:7090");
  Pass(absl::Seconds(20), {"a", "b"});
  EXPECT_EQ(View("b").epoch, 1u);
  EXPECT_TRUE(Finish(job, 1, JobInput::kSucceed).ok());
}

TEST_F(CoordinatorTest, ARunningJobGoesOnWithOtherRanksAfterARestartOfEverything) {
  const std::string job = Submit("job");
  Join("a"), Join("b");
  ASSERT_EQ(View("a").job->id, job);
  Restart();
  Join("c"), Join("d");
  EXPECT_EQ(View("c").epoch, 0u);  // the old ranks may still come back
  Pass(absl::Seconds(11), {"c", "d"});
  EXPECT_EQ(View("c").epoch, 2u);
  EXPECT_EQ(View("c").job->id, job);
  EXPECT_EQ(store_->Get(job)->epoch, 2u);
}

TEST_F(CoordinatorTest, AfterARestartWithoutARunningJobNobodyIsWaitedFor) {
  Join("a"), Join("b");
  Restart();
  Join("c"), Join("d");
  EXPECT_EQ(View("c").epoch, 2u);
}

TEST_F(CoordinatorTest, AJobThatKeepsEndingItsGroupFails) {
  const std::string job = Submit("job"), next = Submit("next");
  for (int i = 0; i < options_.max_lost_groups; ++i) {
    ASSERT_FALSE(IsTerminal(StateOf(job)));
    Join(absl::StrCat("a", i)), Join(absl::StrCat("b", i));
    Pass(absl::Seconds(6), {});
  }
  Join("a"), Join("b");
  EXPECT_EQ(StateOf(job), JobState::kFailed);
  EXPECT_EQ(store_->Get(job)->exit_code, 11);
  EXPECT_THAT(store_->Get(job)->message, HasSubstr("lost 5 times without one step"));
  EXPECT_EQ(View("a").job->id, next);
}

TEST_F(CoordinatorTest, CancellingAsksTheGroup) {
  const std::string job = Submit("job");
  Join("a"), Join("b");
  EXPECT_EQ(View("a").wish, JobWish::kNone);
  ASSERT_TRUE(coordinator_->Cancel(job).ok());
  EXPECT_EQ(View("a").wish, JobWish::kCancel);
  EXPECT_EQ(StateOf(job), JobState::kRunning);
  ASSERT_TRUE(Finish(job, 1, JobInput::kCancelled).ok());
  EXPECT_EQ(StateOf(job), JobState::kCancelled);
  EXPECT_EQ(View("a").wish, JobWish::kNone);
}

TEST_F(CoordinatorTest, CancellingAQueuedJobEndsItAtOnce) {
  const std::string first = Submit("first"), second = Submit("second"), third = Submit("third");
  Join("a"), Join("b");
  ASSERT_TRUE(coordinator_->Cancel(second).ok());
  EXPECT_EQ(store_->Get(second)->exit_code, 12);
  ASSERT_TRUE(Finish(first, 1, JobInput::kSucceed).ok());
  EXPECT_EQ(View("a").job->id, third);
  EXPECT_EQ(coordinator_->Cancel(first).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(coordinator_->Cancel("nope").code(), absl::StatusCode::kNotFound);
}

TEST_F(CoordinatorTest, AHeldJobGoesOnUnderItsIdAndItsOldOutcomeIsForgotten) {
  const std::string job = Submit("job");
  Join("a"), Join("b");
  JobReport report;
  report.report_id = "r";
  report.epoch = 1;
  report.last_checkpoint = "checkpoints/step-00000007";
  ASSERT_TRUE(coordinator_->Report(job, report).ok());
  ASSERT_TRUE(coordinator_->Finish(job, 1, JobInput::kHold, "the disk is full", 14).ok());
  EXPECT_EQ(StateOf(job), JobState::kHeld);
  ASSERT_TRUE(coordinator_->Resume(job).ok());
  EXPECT_EQ(View("a").job->id, job);  // the group is there: it goes on at once
  EXPECT_EQ(View("a").job->last_checkpoint, "checkpoints/step-00000007");
  EXPECT_EQ(store_->Get(job)->exit_code, 0);
  EXPECT_EQ(store_->Get(job)->ended, absl::InfinitePast());
  ASSERT_TRUE(coordinator_->Resume(job).ok());  // its answer was lost, it comes again
  // What ranks say of the first attempt, late, is not about this one.
  EXPECT_EQ(View("a").epoch, 2u);
  EXPECT_EQ(View("b").rank, 1);
  EXPECT_EQ(Finish(job, 1, JobInput::kFail).code(), absl::StatusCode::kAborted);
  ASSERT_TRUE(Finish(job, 2, JobInput::kSucceed).ok());
  EXPECT_EQ(coordinator_->Resume(job).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(coordinator_->Resume("nope").code(), absl::StatusCode::kNotFound);
}

TEST_F(CoordinatorTest, AJobThatLostItsGroupsMayBeResumedAndCountsAnew) {
  const std::string job = Submit("job");
  Join("a"), Join("b");
  for (int i = 1; i < options_.max_lost_groups + 1; ++i) {
    Pass(absl::Seconds(6), {});
    Join("a"), Join("b");
  }
  ASSERT_EQ(StateOf(job), JobState::kFailed);
  ASSERT_TRUE(coordinator_->Resume(job).ok());
  EXPECT_EQ(StateOf(job), JobState::kRunning);
  Pass(absl::Seconds(6), {});
  Join("a"), Join("b");
  EXPECT_EQ(StateOf(job), JobState::kRunning);
}

TEST_F(CoordinatorTest, CancellingWithNoLearnerThereEndsTheJob) {
  const std::string job = Submit("job");
  Join("a"), Join("b");
  Pass(absl::Seconds(6), {});
  ASSERT_TRUE(coordinator_->Cancel(job).ok());
  EXPECT_EQ(StateOf(job), JobState::kCancelled);
}

TEST_F(CoordinatorTest, APreemptedJobWaitsAndGoesOn) {
  const std::string job = Submit("job");
  Join("a"), Join("b");
  ASSERT_TRUE(Finish(job, 1, JobInput::kPreempt).ok());
  EXPECT_EQ(View("a").job->id, job);  // the group is there: it goes on at once
  EXPECT_EQ(store_->Get(job)->lost_groups, 0);
}

TEST_F(CoordinatorTest, APreemptedJobGoesOnWithoutTheRankThatLeaves) {
  const std::string job = Submit("job");
  Join("a"), Join("b"), Join("c");
  AnnounceLeaving("b");
  EXPECT_EQ(View("b").epoch, 1u);  // until the job is given back
  ASSERT_TRUE(Finish(job, 1, JobInput::kPreempt).ok());
  EXPECT_EQ(View("b").epoch, 0u);
  EXPECT_EQ(View("a").epoch, 2u);
  EXPECT_EQ(View("c").rank, 1);
  EXPECT_EQ(View("a").job->id, job);
  coordinator_->Leave("b", "the process stops");
  EXPECT_EQ(View("a").epoch, 2u);
  EXPECT_EQ(store_->Get(job)->lost_groups, 0);
}

TEST_F(CoordinatorTest, WithoutAReplacementAPreemptedJobWaitsAndNoGroupCountsAsLost) {
  const std::string job = Submit("job");
  Join("a"), Join("b");
  for (int drains = 0; drains < 2 * options_.max_lost_groups; ++drains) {
    const uint64_t epoch = View("a").epoch;
    AnnounceLeaving("b");
    ASSERT_TRUE(Finish(job, epoch, JobInput::kPreempt).ok());
    EXPECT_EQ(View("a").epoch, 0u);
    EXPECT_EQ(StateOf(job), JobState::kQueued);
    coordinator_->Leave("b", "the process stops");
    leaving_.erase("b");  // started again
    Join("b");
    EXPECT_EQ(View("a").job->id, job);
  }
  EXPECT_EQ(store_->Get(job)->lost_groups, 0);
}

TEST_F(CoordinatorTest, DrainingStopsTheRunningJobAndAssignsNoOther) {
  const std::string first = Submit("first"), second = Submit("second");
  Join("a"), Join("b");
  coordinator_->Drain();
  EXPECT_TRUE(View("a").drain);
  EXPECT_FALSE(coordinator_->Drained());
  ASSERT_TRUE(Finish(first, 1, JobInput::kPreempt).ok());
  EXPECT_TRUE(coordinator_->Drained());
  EXPECT_EQ(View("a").job, nullptr);
  Restart();
  Join("a"), Join("b");
  EXPECT_EQ(View("a").job->id, first);  // the oldest first, also after it was given back
}

TEST_F(CoordinatorTest, LeavingIsNoticedAtOnce) {
  Join("a"), Join("b"), Join("c");
  coordinator_->Leave("a", "stopped");
  EXPECT_EQ(View("b").epoch, 2u);
  EXPECT_EQ(View("c").rank, 1);
}

TEST_F(CoordinatorTest, ActorsSpreadOverRanksEvenBeforeHeartbeatsCountThem) {
  EXPECT_EQ(coordinator_->AttachActor("x", {}).status().code(), absl::StatusCode::kUnavailable);
  Join("a"), Join("b");
  EXPECT_EQ(coordinator_->AttachActor("x", {}).value(), "a:7090");
  EXPECT_EQ(coordinator_->AttachActor("y", {}).value(), "b:7090");
  EXPECT_EQ(coordinator_->AttachActor("z", {"a:7090"}).value(), "b:7090");
  Pass(absl::Seconds(6), {"a", "b"});
  ASSERT_TRUE(Beat("a", 3).ok());
  ASSERT_TRUE(Beat("b", 1).ok());
  EXPECT_EQ(coordinator_->AttachActor("w", {}).value(), "b:7090");
}

TEST_F(CoordinatorTest, AnActorIsSentFromTheRankThatHasManyToTheOneThatHasNone) {
  Join("a"), Join("b");
  ASSERT_TRUE(Beat("b", 0, 4).ok());
  EXPECT_FALSE(Beat("a", 2, 4)->release_actor);  // no job runs
  Submit("job");
  ASSERT_TRUE(Beat("b", 0, 4).ok());
  EXPECT_TRUE(Beat("a", 2, 4)->release_actor);
  EXPECT_FALSE(Beat("a", 2, 4)->release_actor);  // one at a time: it is on its way
  EXPECT_EQ(coordinator_->AttachActor("x", {"a:7090"}).value(), "b:7090");
  now_ += absl::Seconds(2);
  EXPECT_FALSE(Beat("a", 1, 4)->release_actor);  // it counts at b, though b has not reported it
  EXPECT_FALSE(Beat("b", 1, 4)->release_actor);
}

TEST_F(CoordinatorTest, AnActorThatNeverArrivesIsFollowedByAnother) {
  Join("a"), Join("b");
  Submit("job");
  ASSERT_TRUE(Beat("b", 0, 4).ok());
  EXPECT_TRUE(Beat("a", 3, 4)->release_actor);
  now_ += absl::Seconds(2);
  EXPECT_TRUE(Beat("a", 2, 4)->release_actor);
}

TEST_F(CoordinatorTest, ImpossibleOptionsAreRefused) {
  CoordinatorOptions options;
  options.ranks = 0;
  EXPECT_EQ(options.Validate().code(), absl::StatusCode::kInvalidArgument);
  options.ranks = 1;
  options.lease = options.heartbeat_interval;
  EXPECT_EQ(options.Validate().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(CoordinatorTest, APausedJobWaitsOverRestartsUntilItIsResumed) {
  const std::string job = Submit("job");
  Join("a"), Join("b");
  ASSERT_TRUE(coordinator_->Pause(job).ok());
  EXPECT_EQ(View("a").wish, JobWish::kPause);
  EXPECT_EQ(StateOf(job), JobState::kRunning);
  ASSERT_TRUE(Finish(job, 1, JobInput::kPreempt).ok());  // the checkpoint is written
  EXPECT_EQ(StateOf(job), JobState::kPaused);
  EXPECT_EQ(View("a").job, nullptr);
  Restart();
  Join("a"), Join("b");
  EXPECT_EQ(View("a").job, nullptr);
  EXPECT_EQ(StateOf(job), JobState::kPaused);
  ASSERT_TRUE(coordinator_->Resume(job).ok());
  EXPECT_EQ(View("a").job->id, job);
  EXPECT_EQ(View("a").wish, JobWish::kNone);
}

TEST_F(CoordinatorTest, APauseIsTakenBackByAResume) {
  const std::string job = Submit("job");
  Join("a"), Join("b");
  ASSERT_TRUE(coordinator_->Pause(job).ok());
  ASSERT_TRUE(coordinator_->Resume(job).ok());
  EXPECT_EQ(View("a").wish, JobWish::kNone);
  // A rank that had stopped already gives the job back: it is queued, and goes on.
  ASSERT_TRUE(Finish(job, 1, JobInput::kPreempt).ok());
  EXPECT_EQ(StateOf(job), JobState::kRunning);
}

TEST_F(CoordinatorTest, APauseOutlivesTheGroupThatWasAskedForIt) {
  const std::string job = Submit("job");
  Join("a"), Join("b");
  ASSERT_TRUE(coordinator_->Pause(job).ok());
  Pass(absl::Seconds(6), {});  // both are lost before they stop
  Join("a"), Join("b");
  EXPECT_EQ(View("a").job->id, job);
  EXPECT_EQ(View("a").wish, JobWish::kPause);
}

TEST_F(CoordinatorTest, PausingAJobWhoseGroupIsGoneNeedsNobody) {
  const std::string job = Submit("job");
  Join("a"), Join("b");
  Pass(absl::Seconds(6), {});
  ASSERT_TRUE(coordinator_->Pause(job).ok());
  EXPECT_EQ(StateOf(job), JobState::kPaused);
}

TEST_F(CoordinatorTest, AKilledJobIsOverAtOnceAndTheNextOneRuns) {
  const std::string job = Submit("job"), next = Submit("next");
  Join("a"), Join("b");
  ASSERT_TRUE(coordinator_->Kill(job).ok());
  EXPECT_EQ(StateOf(job), JobState::kCancelled);
  EXPECT_EQ(store_->Get(job)->exit_code, 12);
  EXPECT_EQ(View("a").job->id, next);
  // What its ranks still say of it is late.
  EXPECT_EQ(Finish(job, 1, JobInput::kSucceed).code(), absl::StatusCode::kAborted);
  EXPECT_EQ(StateOf(job), JobState::kCancelled);
  JobReport report;
  report.report_id = "r";
  report.epoch = 1;
  EXPECT_EQ(coordinator_->Report(job, report).status().code(), absl::StatusCode::kAborted);
}

TEST_F(CoordinatorTest, ARankThatIsLostIsNamedAsTheCause) {
  const std::string job = Submit("job");
  Join("a"), Join("b");
  Pass(absl::Seconds(6), {"a"});
  const std::vector<JobEvent> events = store_->LastEvents(job, 100).value();
  const JobEvent* cause = FirstCause(events);
  ASSERT_NE(cause, nullptr);
  const LogLine& line = std::get<LogLine>(cause->what);
  EXPECT_THAT(line.text, HasSubstr("rank 1 (host, b:7090) was lost: no heartbeat for"));
  EXPECT_EQ(line.role, "coordinator");
}

}  // namespace
}  // namespace sluice::learner
