#include "learner/job/job_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <set>

#include "absl/strings/str_cat.h"
#include "common/file/file.h"
#include "common/status/exit_code.h"

namespace sluice::learner {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class JobStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = absl::StrCat(testing::TempDir(), "/job_store_XXXXXX");
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
    path_ = JoinPath(folder_, "jobs.db");
    Reopen();
  }
  void TearDown() override {
    store_.reset();
    EXPECT_TRUE(RemoveAll(folder_).ok());
  }

  // As after a crash: nothing of the old process is left but the file.
  void Reopen() {
    store_.reset();
    auto store = JobStore::Open(path_, options_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }

  NewJob Job(const std::string& request, const std::string& digest = "digest") {
    return {request, "My run", 2, std::string("spec\0bytes", 10), "kind: sft\n", digest};
  }
  std::string Submit(const std::string& request) { return store_->Submit(Job(request), now_).value().job_id; }

  const absl::Time now_ = absl::FromUnixSeconds(1700000000);
  std::string folder_;
  std::string path_;
  JobStoreOptions options_;
  std::unique_ptr<JobStore> store_;
};

TEST_F(JobStoreTest, ASubmittedJobIsThereAfterReopening) {
  const std::string id = Submit("r1");
  Reopen();
  const auto job = store_->Get(id);
  ASSERT_TRUE(job.ok()) << job.status();
  EXPECT_EQ(job->state, JobState::kQueued);
  EXPECT_EQ(job->spec, std::string("spec\0bytes", 10));
  EXPECT_EQ(job->spec_yaml, "kind: sft\n");
  EXPECT_EQ(job->kind, 2);
  EXPECT_EQ(job->submitted, now_);
  EXPECT_EQ(job->started, absl::InfinitePast());
  EXPECT_EQ(job->run_folder, absl::StrCat("runs/", id));
  EXPECT_THAT(id, HasSubstr("my-run-"));
}

TEST_F(JobStoreTest, TheSameRequestGivesTheSameJob) {
  const auto first = store_->Submit(Job("r1"), now_);
  const auto again = store_->Submit(Job("r1"), now_ + absl::Seconds(9));
  ASSERT_TRUE(first.ok() && again.ok());
  EXPECT_EQ(again->job_id, first->job_id);
  EXPECT_FALSE(first->existed);
  EXPECT_TRUE(again->existed);
  EXPECT_EQ(store_->List(10)->size(), 1u);
}

TEST_F(JobStoreTest, TheSameRequestWithAnotherSpecIsRefused) {
  ASSERT_TRUE(store_->Submit(Job("r1"), now_).ok());
  const auto other = store_->Submit(Job("r1", "other digest"), now_);
  EXPECT_EQ(other.status().code(), absl::StatusCode::kAlreadyExists);
}

TEST_F(JobStoreTest, JobsListNewestFirstAndWaitOldestFirst) {
  const std::string a = Submit("a"), b = Submit("b"), c = Submit("c");
  ASSERT_TRUE(store_->Apply(b, JobInput::kCancel, "", 12, now_).ok());
  std::vector<std::string> listed, waiting;
  const auto all = store_->List(10);
  const auto unfinished = store_->Unfinished();
  for (const JobRecord& job : *all) listed.push_back(job.id);
  for (const JobRecord& job : *unfinished) waiting.push_back(job.id);
  EXPECT_THAT(listed, ElementsAre(c, b, a));
  EXPECT_THAT(waiting, ElementsAre(a, c));
}

TEST_F(JobStoreTest, ARunningJobIsFoundAgainAfterReopening) {
  const std::string id = Submit("r1");
  ASSERT_TRUE(store_->Assign(id, 7, "", now_ + absl::Seconds(1)).ok());
  JobReport report;
  report.report_id = "x";
  report.epoch = 7;
  report.last_checkpoint = "step-40";
  report.metrics = {{40, 200, {{"loss", 0.5}}}};
  ASSERT_TRUE(store_->Report(id, report, now_ + absl::Seconds(2)).ok());
  Reopen();
  const auto jobs = store_->Unfinished();
  ASSERT_TRUE(jobs.ok());
  ASSERT_EQ(jobs->size(), 1u);
  EXPECT_EQ(jobs->front().state, JobState::kRunning);
  EXPECT_EQ(jobs->front().last_checkpoint, "step-40");
  EXPECT_EQ(jobs->front().step, 40u);
  EXPECT_EQ(jobs->front().total_steps, 200u);
  EXPECT_EQ(jobs->front().epoch, 7u);
  EXPECT_EQ(jobs->front().started, now_ + absl::Seconds(1));
}

TEST_F(JobStoreTest, EventsCountWithoutGapsOverReopening) {
  const std::string id = Submit("r1");                // 1: queued
  ASSERT_TRUE(store_->Assign(id, 1, "", now_).ok());  // 2: running
  JobReport report;
  report.report_id = "a";
  report.epoch = 1;
  report.metrics = {{1, 10, {{"loss", 2.5}}}};                 // 3
  report.logs = {{"info", "hello"}, {"warning", "\xff odd"}};  // 4, 5
  ASSERT_TRUE(store_->Report(id, report, now_).ok());
  Reopen();
  ASSERT_TRUE(store_->Apply(id, JobInput::kFail, "no such file", 3, now_).ok());  // 6
  const auto events = store_->Events(id, 0, 100);
  ASSERT_TRUE(events.ok()) << events.status();
  ASSERT_EQ(events->size(), 6u);
  for (size_t i = 0; i < events->size(); ++i) EXPECT_EQ((*events)[i].sequence, i + 1);
  EXPECT_EQ(std::get<MetricsPoint>((*events)[2].what).values.at("loss"), 2.5);
  EXPECT_EQ(std::get<LogLine>((*events)[3].what).text, "hello");
  const auto& end = std::get<StateChanged>((*events)[5].what);
  EXPECT_EQ(end.state, JobState::kFailed);
  EXPECT_EQ(end.message, "no such file");
  EXPECT_EQ(end.exit_code, 3);
  EXPECT_EQ(store_->Events(id, 4, 1)->front().sequence, 5u);
  EXPECT_TRUE(store_->Events(id, std::numeric_limits<uint64_t>::max(), 1)->empty());
}

TEST_F(JobStoreTest, AReportIsAppliedOnce) {
  const std::string id = Submit("r1");
  JobReport report;
  report.report_id = "a";
  report.logs = {{"info", "once"}};
  ASSERT_TRUE(store_->Report(id, report, now_).ok());
  ASSERT_TRUE(store_->Report(id, report, now_).ok());
  EXPECT_EQ(store_->Events(id, 1, 100)->size(), 1u);
  report.report_id = "b";
  ASSERT_TRUE(store_->Report(id, report, now_).ok());
  EXPECT_EQ(store_->Events(id, 1, 100)->size(), 2u);
}

TEST_F(JobStoreTest, OldEventsAreForgottenAndNumbersGoOn) {
  options_.max_events_per_job = 10;
  Reopen();
  const std::string id = Submit("r1");
  JobReport report;
  report.report_id = "a";
  for (int i = 0; i < 30; ++i) report.logs.push_back({"info", absl::StrCat(i)});
  ASSERT_TRUE(store_->Report(id, report, now_).ok());
  const auto events = store_->Events(id, 0, 100);
  ASSERT_EQ(events->size(), 10u);
  EXPECT_EQ(events->front().sequence, 22u);
  EXPECT_EQ(events->back().sequence, 31u);
}

TEST_F(JobStoreTest, ANumberThatIsNotFiniteStaysSo) {
  const std::string id = Submit("r1");
  JobReport report;
  report.report_id = "a";
  report.metrics = {{1, 0, {{"loss", std::nan("")}, {"rate", 1}}}};
  ASSERT_TRUE(store_->Report(id, report, now_).ok());
  const auto events = store_->Events(id, 1, 1);
  EXPECT_TRUE(std::isnan(std::get<MetricsPoint>(events->front().what).values.at("loss")));
  EXPECT_EQ(store_->LatestMetrics(id)->count("loss"), 0u);
  EXPECT_EQ(store_->LatestMetrics(id)->at("rate"), 1);
}

TEST_F(JobStoreTest, LatestValuesWin) {
  const std::string id = Submit("r1");
  JobReport report;
  report.report_id = "a";
  report.metrics = {{1, 0, {{"loss", 3}, {"rate", 1}}}, {2, 0, {{"loss", 2}}}};
  report.results = {{"report", "a.html"}};
  ASSERT_TRUE(store_->Report(id, report, now_).ok());
  report.report_id = "b";
  report.metrics.clear();
  report.results = {{"report", "b.html"}, {"export", "export"}};
  report.has_balance = true;
  report.balance = {10, 4, 1, 2, 0, 3, 5};
  ASSERT_TRUE(store_->Report(id, report, now_).ok());
  EXPECT_EQ(*store_->LatestMetrics(id), (std::map<std::string, double>{{"loss", 2}, {"rate", 1}}));
  EXPECT_EQ(*store_->Results(id), (std::map<std::string, std::string>{{"export", "export"}, {"report", "b.html"}}));
  EXPECT_EQ(store_->Get(id)->balance.open, 3u);
  EXPECT_EQ(store_->Get(id)->balance.frontier, 5u);
}

TEST_F(JobStoreTest, VersionsAndEpochsAreNeverGivenOutTwice) {
  const std::string id = Submit("r1");
  ASSERT_TRUE(store_->Assign(id, 1, "", now_).ok());
  std::set<uint64_t> versions, epochs;
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(versions.insert(store_->ReserveVersion(id, 1).value()).second);
    EXPECT_TRUE(epochs.insert(store_->ReserveEpoch({{"m", "host:1", "host"}}).value()).second);
    Reopen();
  }
  EXPECT_EQ(*versions.rbegin(), 3u);
  EXPECT_EQ(*epochs.rbegin(), 3u);
}

TEST_F(JobStoreTest, AVersionIsGreaterThanThatOfACheckpointThatTheStoreDoesNotKnowOf) {
  const std::string id = Submit("r1");
  ASSERT_TRUE(store_->Assign(id, 1, "", now_).ok());
  EXPECT_EQ(store_->ReserveVersion(id, 1, 0).value(), 1u);
  EXPECT_EQ(store_->ReserveVersion(id, 1, 7).value(), 8u);  // the store came from a copy of before the checkpoint
  EXPECT_EQ(store_->ReserveVersion(id, 1, 7).value(), 9u);
  Reopen();
  EXPECT_EQ(store_->ReserveVersion(id, 1).value(), 10u);
  EXPECT_EQ(store_->ReserveVersion(id, 1, std::numeric_limits<uint64_t>::max()).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(store_->ReserveVersion(id, 1).value(), 11u);
}

TEST_F(JobStoreTest, TheLatestGroupIsRememberedUntilItIsLost) {
  ASSERT_TRUE(store_->ReserveEpoch({{"a", "host:1", "host"}, {"b", "host:2", "host"}}).ok());
  Reopen();
  StoredGroup group = store_->LatestGroup().value();
  ASSERT_EQ(group.members.size(), 2u);
  EXPECT_EQ(group.members[1].address, "host:2");
  ASSERT_TRUE(store_->ForgetGroup().ok());
  Reopen();
  group = store_->LatestGroup().value();
  EXPECT_TRUE(group.members.empty());
  EXPECT_EQ(group.epoch, 1u);
  EXPECT_EQ(store_->ReserveEpoch({}).value(), 2u);
}

TEST_F(JobStoreTest, AnOldEpochReservesNothing) {
  const std::string id = Submit("r1");
  ASSERT_TRUE(store_->Assign(id, 1, "", now_).ok());
  ASSERT_TRUE(store_->Assign(id, 2, "", now_).ok());
  EXPECT_EQ(store_->ReserveVersion(id, 1).status().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(store_->ReserveOrdinals(id, 1, 1, 0, 8).code(), absl::StatusCode::kAborted);
  JobReport report;
  report.report_id = "late";
  report.epoch = 1;
  EXPECT_EQ(store_->Report(id, report, now_).status().code(), absl::StatusCode::kAborted);
}

TEST_F(JobStoreTest, OrdinalsOfAStepAreReservedOnce) {
  const std::string id = Submit("r1");
  ASSERT_TRUE(store_->Assign(id, 1, "", now_).ok());
  EXPECT_TRUE(store_->ReserveOrdinals(id, 1, 1, 0, 64).ok());
  EXPECT_TRUE(store_->ReserveOrdinals(id, 1, 1, 0, 64).ok());
  EXPECT_EQ(store_->ReserveOrdinals(id, 1, 1, 64, 64).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(store_->ReserveOrdinals(id, 1, 2, 64, 64).ok());
  EXPECT_EQ(store_->Get(id)->ordinals, 128u);
  ASSERT_TRUE(store_->Assign(id, 2, "", now_).ok());  // step 2 was lost with its group and is cut anew
  EXPECT_TRUE(store_->ReserveOrdinals(id, 2, 2, 60, 64).ok());
  EXPECT_EQ(store_->Get(id)->ordinals, 128u);
  EXPECT_EQ(store_->ReserveOrdinals(id, 2, 3, std::numeric_limits<uint64_t>::max(), 1).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(JobStoreTest, LostGroupsCountUntilAStepForward) {
  const std::string id = Submit("r1");
  ASSERT_TRUE(store_->Assign(id, 1, "", now_).ok());
  ASSERT_TRUE(store_->Assign(id, 2, "", now_).ok());
  ASSERT_TRUE(store_->Assign(id, 3, "", now_).ok());
  EXPECT_EQ(store_->Get(id)->lost_groups, 2);
  JobReport report;
  report.report_id = "a";
  report.epoch = 3;
  report.metrics = {{1, 10, {}}};
  ASSERT_TRUE(store_->Report(id, report, now_).ok());
  EXPECT_EQ(store_->Get(id)->lost_groups, 0);
}

TEST_F(JobStoreTest, AReportLearnsThatTheEndIsAskedFor) {
  const std::string id = Submit("r1");
  ASSERT_TRUE(store_->Assign(id, 1, "", now_).ok());
  JobReport report;
  report.epoch = 1;
  report.report_id = "a";
  EXPECT_FALSE(store_->Report(id, report, now_).value());
  ASSERT_TRUE(store_->Apply(id, JobInput::kCancel, "", 0, now_).ok());
  report.report_id = "b";
  EXPECT_TRUE(store_->Report(id, report, now_).value());
}

TEST_F(JobStoreTest, TooManyWaitingJobsAreRefused) {
  options_.max_queued = 2;
  Reopen();
  Submit("a");
  Submit("b");
  EXPECT_EQ(store_->Submit(Job("c"), now_).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(store_->Submit(Job("b"), now_)->existed);
}

TEST_F(JobStoreTest, ListenersHearOfChanges) {
  std::vector<std::string> heard;
  store_->SetListener([&heard](const std::string& id) { heard.push_back(id); });
  const std::string id = Submit("r1");
  ASSERT_TRUE(store_->Apply(id, JobInput::kCancel, "", 12, now_).ok());
  EXPECT_THAT(heard, ElementsAre(id, id));
}

TEST_F(JobStoreTest, AnUnknownJobIsNotFound) {
  EXPECT_EQ(store_->Get("nope").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store_->Apply("nope", JobInput::kCancel, "", 0, now_).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store_->Report("nope", {}, now_).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(JobStoreTest, ARefusedTransitionLeavesNoTrace) {
  const std::string id = Submit("r1");
  EXPECT_EQ(store_->Apply(id, JobInput::kSucceed, "", 0, now_).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(store_->Events(id, 0, 10)->size(), 1u);
}

TEST_F(JobStoreTest, ASecondCoordinatorIsKeptOut) {
  const auto second = JobStore::Open(path_, options_);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("held by another process"));
}

TEST_F(JobStoreTest, ADamagedFileIsReportedWithTheRemedy) {
  for (int i = 0; i < 50; ++i) Submit(absl::StrCat("r", i));
  store_.reset();
  {
    std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(4096);
    const std::string noise(8192, '\x5a');
    file.write(noise.data(), noise.size());
  }
  const auto damaged = JobStore::Open(path_, options_);
  ASSERT_FALSE(damaged.ok());
  EXPECT_EQ(damaged.status().code(), absl::StatusCode::kDataLoss) << damaged.status();
  EXPECT_EQ(ExitCodeFor(damaged.status()), ExitCode::kIntegrity);
  EXPECT_THAT(std::string(damaged.status().message()), HasSubstr("move it away"));
}

TEST_F(JobStoreTest, AFileThatIsNoStoreIsRefused) {
  const std::string other = JoinPath(folder_, "notes.txt");
  ASSERT_TRUE(
      WriteFileAtomically(other, "these are notes, and long enough to not be an empty database at all......").ok());
  EXPECT_EQ(JobStore::Open(other, options_).status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(JobStoreTest, AFileOfANewerVersionIsRefused) {
  store_.reset();
  {
    auto database = SqliteDatabase::Open(path_, 1 << 30);
    ASSERT_TRUE(database.ok());
    ASSERT_TRUE((*database)->Execute("PRAGMA user_version=99").ok());
  }
  EXPECT_EQ(JobStore::Open(path_, options_).status().code(), absl::StatusCode::kFailedPrecondition);
  auto database = SqliteDatabase::Open(path_, 1 << 30);
  ASSERT_TRUE((*database)->Execute("PRAGMA user_version=1").ok());
}

TEST_F(JobStoreTest, AFullDiskFailsTheWriteAndHarmsNothing) {
  const std::string id = Submit("r1");
  options_.max_bytes = 40 * 4096;  // as a disk with so many bytes
  Reopen();
  absl::Status status = absl::OkStatus();
  int reports = 0;
  while (status.ok() && reports < 1000) {
    JobReport report;
    report.report_id = absl::StrCat(++reports);
    report.logs = {{"info", std::string(4000, 'x')}};
    status = store_->Report(id, report, now_).status();
  }
  EXPECT_EQ(ExitCodeFor(status), ExitCode::kNoSpace) << status;
  const size_t kept = store_->Events(id, 1, 1000)->size();
  EXPECT_EQ(kept, static_cast<size_t>(reports) - 1);  // all but the one that failed
  options_.max_bytes = int64_t{1} << 30;
  Reopen();
  EXPECT_EQ(store_->Events(id, 1, 1000)->size(), kept);
  EXPECT_TRUE(store_->Apply(id, JobInput::kCancel, "", 12, now_).ok());
}

TEST_F(JobStoreTest, AStoreOfTheFirstFormatIsTakenOver) {
  const std::string id = Submit("r1");
  store_.reset();
  {
    auto database = SqliteDatabase::Open(path_, 1 << 30);
    ASSERT_TRUE(database.ok());
    ASSERT_TRUE((*database)->Execute("ALTER TABLE jobs DROP COLUMN forked_from").ok());
    ASSERT_TRUE((*database)->Execute("ALTER TABLE jobs DROP COLUMN fork_checkpoint").ok());
    ASSERT_TRUE((*database)->Execute("PRAGMA user_version=1").ok());
  }
  Reopen();
  EXPECT_EQ(store_->Get(id)->forked_from, "");
  EXPECT_EQ(store_->Get(id)->name, "My run");
}

TEST_F(JobStoreTest, APausedJobIsNoUnfinishedOne) {
  const std::string id = Submit("r1");
  ASSERT_TRUE(store_->Apply(id, JobInput::kPause, "", 0, now_).ok());
  Reopen();
  EXPECT_TRUE(store_->Unfinished()->empty());
  ASSERT_EQ(store_->Paused()->size(), 1u);
  EXPECT_EQ(store_->Paused()->front().id, id);
}

TEST_F(JobStoreTest, AnEndedJobIsForgottenWithItsRequest) {
  const std::string id = Submit("r1"), other = Submit("r2");
  EXPECT_EQ(store_->Delete(id).code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(store_->Apply(id, JobInput::kCancel, "", 12, now_).ok());
  EXPECT_EQ(store_->FindRequest("r1")->id, id);
  ASSERT_TRUE(store_->Delete(id).ok());
  EXPECT_EQ(store_->Get(id).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store_->FindRequest("r1").status().code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(store_->Events(id, 0, 10)->empty());
  EXPECT_EQ(store_->Delete(id).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store_->Get(other)->state, JobState::kQueued);
  EXPECT_FALSE(store_->Submit(Job("r1"), now_ + absl::Seconds(1))->existed);
}

TEST_F(JobStoreTest, LinesKeepWhereTheyComeFrom) {
  const std::string id = Submit("r1");
  ASSERT_TRUE(store_->Append(id, {"warning", "gone", "coordinator", -1, LineCause::kOwn}, now_).ok());
  Reopen();
  const std::vector<JobEvent> events = store_->LastEvents(id, 1).value();
  ASSERT_EQ(events.size(), 1u);
  const LogLine& line = std::get<LogLine>(events.front().what);
  EXPECT_EQ(line.role, "coordinator");
  EXPECT_EQ(line.rank, -1);
  EXPECT_EQ(line.cause, LineCause::kOwn);
  EXPECT_EQ(events.front().sequence, 2u);
  EXPECT_EQ(line.source, "");
  EXPECT_EQ(line.said, std::nullopt);

  const absl::Time said = absl::FromUnixMicros(1'234'567);
  ASSERT_TRUE(store_->Append(id, {"error", "no model", "actor", 1, LineCause::kNone, "actor-7", said}, now_).ok());
  Reopen();
  const LogLine of_actor = std::get<LogLine>(store_->LastEvents(id, 1).value().front().what);
  EXPECT_EQ(of_actor.role, "actor");
  EXPECT_EQ(of_actor.rank, 1);
  EXPECT_EQ(of_actor.source, "actor-7");
  EXPECT_EQ(of_actor.said, said);
}

}  // namespace
}  // namespace sluice::learner
