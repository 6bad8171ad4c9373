#include "learner/rpc/member_client.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <set>

#include "common/status/exit_code.h"
#include "tests/learner/rpc/coordinator_fixture.h"

namespace sluice::learner {
namespace {

class MemberClientTest : public CoordinatorFixture {};

TEST_F(MemberClientTest, RanksFindTheirPlaces) {
  server_.reset();
  options_.coordinator.ranks = 2;
  StartServer();
  const auto a = MakeMember("a");
  WaitFor(a.get(), [this](const RankView&) { return server_->coordinator()->Snapshot().members.size() == 1; });
  const auto b = MakeMember("b");
  const auto placed = [](const RankView& view) { return view.epoch != 0; };
  const RankView view_a = WaitFor(a.get(), placed);
  const RankView view_b = WaitFor(b.get(), placed);
  EXPECT_EQ(view_a.rank, 0);
  EXPECT_EQ(view_b.rank, 1);
  EXPECT_EQ(view_a.world_size, 2);
  EXPECT_EQ(view_a.epoch, view_b.epoch);
}

TEST_F(MemberClientTest, TheJobComesWithItsSpec) {
  const std::string id = SubmitJob();
  const auto member = MakeMember("m");
  const RankView view = WaitForJob(member.get());
  ASSERT_NE(view.job, nullptr);
  EXPECT_EQ(view.job->id, id);
  EXPECT_EQ(view.job->spec.sft().passes(), 24);
  EXPECT_EQ(view.job->spec_yaml, "kind: sft\nname: n\ndata: d\n");
  EXPECT_EQ(view.job->run_folder, JoinPath(options_.store.runs_folder, id));
  EXPECT_FALSE(view.cancel_requested);
  ASSERT_TRUE(Cancel(id).ok());
  const RankView cancelled = WaitFor(member.get(), [](const RankView& v) { return v.cancel_requested; });
  EXPECT_TRUE(cancelled.cancel_requested);
  EXPECT_EQ(cancelled.job->spec.sft().passes(), 24);  // kept, though later heartbeats do not repeat it
}

TEST_F(MemberClientTest, OutcomesBecomeStatesAndExitCodes) {
  const std::pair<absl::Status, std::pair<v1::JobState, int>> cases[] = {
      {absl::OkStatus(), {v1::JOB_STATE_SUCCEEDED, 0}},
      {absl::DataLossError("bad file"), {v1::JOB_STATE_FAILED, 3}},
      {absl::CancelledError("on request"), {v1::JOB_STATE_CANCELLED, 12}},
      {HeldError("diverged"), {v1::JOB_STATE_HELD, 13}},
      {NoSpaceError("disk full"), {v1::JOB_STATE_FAILED, 14}}};
  const auto member = MakeMember("m");
  int request = 0;
  for (const auto& [outcome, want] : cases) {
    const std::string id = SubmitJob(absl::StrCat("r", request++));
    const RankView view = WaitFor(member.get(), [&id](const RankView& v) { return v.job && v.job->id == id; });
    ASSERT_TRUE(member->Finish(id, view.epoch, outcome).ok());
    ASSERT_TRUE(member->Finish(id, view.epoch, outcome).ok());  // as after a lost answer
    const auto described = Describe(id);
    EXPECT_EQ(described->summary().state(), want.first);
    EXPECT_EQ(described->summary().exit_code(), want.second);
    EXPECT_EQ(described->summary().message(), outcome.ok() ? "done" : std::string(outcome.message()));
  }
}

TEST_F(MemberClientTest, TheRendezvousStoreIsShared) {
  const auto a = MakeMember("a");
  const auto b = MakeMember("b");
  ASSERT_TRUE(a->kv()->Set("epoch/1/x", std::string("v\0w", 3)).ok());
  EXPECT_EQ(b->kv()->Get("epoch/1/x", absl::Seconds(30)).value(), std::string("v\0w", 3));
  EXPECT_EQ(a->kv()->Add("epoch/1/n", 2).value(), 2);
  EXPECT_EQ(b->kv()->Add("epoch/1/n", 3).value(), 5);
  EXPECT_EQ(a->kv()->Get("epoch/1/missing", absl::Milliseconds(20)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
}

TEST_F(MemberClientTest, ARestartOfTheCoordinatorKeepsEpochAndNumbers) {
  const std::string id = SubmitJob();
  const auto member = MakeMember("m");
  const RankView before = WaitForJob(member.get());
  ASSERT_NE(before.job, nullptr);
  std::set<uint64_t> versions;
  versions.insert(member->ReserveVersion(id, before.epoch).value());

  server_.reset();
  StartServer();  // same port, same store

  versions.insert(member->ReserveVersion(id, before.epoch).value());  // retried until it answers
  EXPECT_EQ(versions.size(), 2u);
  JobReporter reporter(member.get(), id, before.epoch);
  reporter.ReportLog("info", "still here");
  EXPECT_TRUE(reporter.Flush(absl::Seconds(60)).ok());
  EXPECT_EQ(member->view().epoch, before.epoch);
  EXPECT_TRUE(member->Finish(id, before.epoch, absl::OkStatus()).ok());
  EXPECT_EQ(Describe(id)->summary().state(), v1::JOB_STATE_SUCCEEDED);
}

TEST_F(MemberClientTest, ReportsThatWaitedForTheCoordinatorArriveOnce) {
  const std::string id = SubmitJob();
  const auto member = MakeMember("m");
  const RankView view = WaitForJob(member.get());
  JobReporterOptions options;
  options.interval = absl::Milliseconds(5);
  options.max_lines = 10;
  JobReporter reporter(member.get(), id, view.epoch, options);
  server_.reset();
  for (int i = 0; i < 100; ++i) reporter.ReportLog("info", absl::StrCat("line ", i));
  EXPECT_EQ(reporter.Flush(absl::Milliseconds(50)).code(), absl::StatusCode::kDeadlineExceeded);
  StartServer();
  ASSERT_TRUE(reporter.Flush(absl::Seconds(60)).ok());
  ASSERT_TRUE(Cancel(id).ok());
  ASSERT_TRUE(member->Finish(id, view.epoch, absl::CancelledError("")).ok());
  std::vector<v1::JobEvent> events;
  ASSERT_TRUE(Watch(id, 0, &events).ok());
  std::multiset<std::string> lines;
  for (const v1::JobEvent& event : events) {
    if (event.has_log()) lines.insert(event.log().text());
  }
  EXPECT_EQ(lines.count("line 99"), 1u);
  EXPECT_LE(lines.size(), 25u);  // the bound, twice, and the notes about what was dropped
  EXPECT_TRUE(std::any_of(lines.begin(), lines.end(),
                          [](const std::string& line) { return line.find("were dropped") != line.npos; }));
}

TEST_F(MemberClientTest, ReportedResultsAndCheckpointsAreDescribed) {
  const std::string id = SubmitJob();
  const auto member = MakeMember("m");
  member->SetPhase("training");
  member->SetLoad([] { return MemberClient::RolloutLoad{.actors = 3, .waiting_blocks = 7}; });
  const RankView view = WaitForJob(member.get());
  JobReporter reporter(member.get(), id, view.epoch);
  LedgerBalance balance;
  balance.issued = 64;
  balance.trained = 60;
  balance.open = 4;
  reporter.ReportCheckpoint("checkpoints/step-00000040", 7, balance);
  reporter.ReportResult("export", "export/best");
  reporter.ReportMetrics(40, 200, {{"loss", 1.5}});
  ASSERT_TRUE(reporter.Flush(absl::Seconds(60)).ok());
  const auto described = Describe(id);
  EXPECT_EQ(described->last_checkpoint(), "checkpoints/step-00000040");
  EXPECT_EQ(described->policy_version(), 7u);
  EXPECT_EQ(described->ledger().trained(), 60u);
  EXPECT_EQ(described->results().at("export"), "export/best");
  EXPECT_EQ(described->metrics().at("loss"), 1.5);
  EXPECT_EQ(described->summary().total_steps(), 200u);
  ASSERT_EQ(described->members_size(), 1);
  EXPECT_EQ(described->members(0).phase(), "training");
  EXPECT_EQ(described->members(0).actors(), 3u);
}

TEST_F(MemberClientTest, AnOldEpochIsFencedOff) {
  const std::string id = SubmitJob();
  auto first = MakeMember("first");
  const RankView old = WaitForJob(first.get());
  first->Leave("done here");
  first->Stop();
  const auto second = MakeMember("second");
  const RankView view = WaitForJob(second.get());
  EXPECT_GT(view.epoch, old.epoch);
  JobReporter late(second.get(), id, old.epoch);
  late.ReportLog("info", "from the past");
  EXPECT_EQ(late.Flush(absl::Seconds(60)).code(), absl::StatusCode::kAborted);
  EXPECT_EQ(second->ReserveVersion(id, old.epoch).status().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(second->ReserveOrdinals(id, old.epoch, 1, 0, 8).code(), absl::StatusCode::kAborted);
  EXPECT_EQ(second->Finish(id, old.epoch, absl::OkStatus()).code(), absl::StatusCode::kAborted);
  EXPECT_TRUE(second->ReserveOrdinals(id, view.epoch, 1, 0, 8).ok());
}

TEST_F(MemberClientTest, StoppingEndsWaitsAtOnce) {
  const auto member = MakeMember("m");
  server_.reset();
  absl::Status status = absl::OkStatus();
  Thread waiter = StartThread("waiter", [&] { status = member->ReserveVersion("job", 1).status(); });
  member->Stop();
  waiter.Join();
  EXPECT_FALSE(status.ok());
}

}  // namespace
}  // namespace sluice::learner
