#include "learner/rpc/trace_job.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/spec/spec.h"
#include "common/trace/trace_entries.h"
#include "tests/testing/temporary_folder.h"
#include "tests/testing/traced_run.h"

namespace sluice::learner {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// A job of 10 steps of four groups.
class TraceJobTest : public testing::Test {
 protected:
  void SetUp() override {
    JobStoreOptions options;
    options.runs_folder = folder_ / "runs";
    store_ = JobStore::Open(folder_ / "jobs.db", options).value();
  }

  std::string Spec(const std::string& more) const {
    return absl::StrCat(
        "kind: rl\nname: n\ndata: d\nrl: {steps: 10, groups_per_step: 4, lease_groups: 2, gate: {negatives: 1}", more,
        "}\n");
  }
  // Running in epoch 1, with a run folder.
  void Submit(const std::string& more = "") {
    id_ = SubmitYaml(Spec(more));
    epoch_ = store_->ReserveEpoch({}).value();
    ASSERT_TRUE(store_->Assign(id_, epoch_, "", At(1)).ok());
    run_ = std::make_unique<TracedRun>(store_->Get(id_)->run_folder);
  }
  std::string SubmitYaml(const std::string& yaml) {
    const ResolvedSpec spec = ResolveSpec(yaml, "s.yaml").value();
    NewJob job;
    job.request_id = "r";
    job.name = "n";
    job.kind = spec.effective.kind();
    job.spec = spec.effective.SerializeAsString();
    return store_->Submit(job, At(0)).value().job_id;
  }
  static absl::Time At(int second) { return absl::FromUnixSeconds(1'800'000'000 + second); }
  void Reserve(uint64_t step) { ASSERT_TRUE(store_->ReserveOrdinals(id_, epoch_, step, 4 * step, 4).ok()); }
  // `steps` are done; with lines of the job's log.
  void Report(uint64_t steps, int second, std::vector<LogLine> lines = {}) {
    JobReport report;
    report.epoch = epoch_;
    report.report_id = absl::StrCat(steps);
    report.metrics = {{steps, 10, {{"loss/nll", 1}}}};
    report.logs = std::move(lines);
    ASSERT_TRUE(store_->Report(id_, report, At(second)).ok());
  }
  // The group `i` of a step as the second attempt's, scored, with a gate that is closed for its difficulty.
  static GroupRecord Recorded(uint64_t step, uint64_t i) {
    GroupRecord record;
    record.step = step;
    record.ordinal = 4 * step + i;
    record.learner_version = step + 5;
    record.user = static_cast<int32_t>(i);
    record.target = 77;
    record.reason = record.gate_reason = GateReason::kDifficulty;
    ScoredGroup& group = record.group.emplace();
    group.attempt = 2;
    group.lease_id = 31;
    group.behavior_version = step + 4;
    group.completions.resize(4);
    group.score_status = ScoreStatus::kOk;
    group.ranker_version = "ranker-1";
    group.heads = {{"click", {0.25, 0.5, 0.125, 0.75}, 0.5, {0.25, 0.5}, {}}};
    return record;
  }
  void Record(uint64_t step) {
    std::vector<GroupRecord> groups;
    for (uint64_t i = 0; i < 4; ++i) groups.push_back(Recorded(step, i));
    run_->Record(groups);
  }

  absl::StatusOr<v1::TraceResponse> Trace(const std::vector<uint64_t>& ordinals) {
    v1::TraceRequest request;
    request.set_job_id(id_);
    request.mutable_ordinals()->Add(ordinals.begin(), ordinals.end());
    return TraceJob(request, store_.get());
  }
  v1::GroupTrace TraceOne(uint64_t ordinal) {
    const auto trace = Trace({ordinal});
    EXPECT_TRUE(trace.ok()) << trace.status();
    return trace.ok() ? trace->groups(0) : v1::GroupTrace();
  }
  absl::Status Refusal(const std::vector<uint64_t>& ordinals) { return Trace(ordinals).status(); }
  static std::vector<std::string> Events(const v1::GroupTrace& group) {
    std::vector<std::string> events;
    for (const v1::TraceEntry& entry : group.entries()) events.push_back(entry.event());
    return events;
  }
  static std::vector<std::string> Gaps(const v1::GroupTrace& group) {
    std::vector<std::string> gaps;
    for (const v1::TraceGap& gap : group.unknown()) gaps.push_back(gap.what());
    return gaps;
  }
  static const v1::TraceEntry& Entry(const v1::GroupTrace& group, const std::string& event) {
    static const v1::TraceEntry none;
    for (const v1::TraceEntry& entry : group.entries()) {
      if (entry.event() == event) return entry;
    }
    ADD_FAILURE() << "there is no " << event;
    return none;
  }

  TemporaryFolder folder_;
  std::unique_ptr<JobStore> store_;
  std::unique_ptr<TracedRun> run_;
  std::string id_;
  uint64_t epoch_ = 0;
};

TEST_F(TraceJobTest, ATrainedGroupIsToldFromIssueToEnd) {
  Submit(", record: true");
  for (uint64_t step = 0; step < 3; ++step) {
    Reserve(step);
    Record(step);
    run_->EndStep(step, "difficulty");
    Report(step + 1, 10 * static_cast<int>(step + 1), {{"warning", absl::StrCat("after step ", step)}});
  }
  run_->SaveCheckpoint(3);
  const v1::GroupTrace group = TraceOne(9);
  EXPECT_EQ(group.state(), "trained");
  EXPECT_EQ(group.reason(), "difficulty");
  EXPECT_EQ(group.step(), 2u);
  EXPECT_EQ(group.summary(), "trained in step 2: difficulty");
  // The job's lines of the steps in which it was under way, and no later ones.
  EXPECT_THAT(Events(group), ElementsAre("issued", "sampled", "scored", "job", "job", "job", "job", "judged", "ended"));
  const v1::TraceEntry& issued = Entry(group, "issued");
  EXPECT_EQ(issued.epoch(), epoch_);
  EXPECT_EQ(issued.user(), 1);
  EXPECT_EQ(issued.position(), 2);
  EXPECT_EQ(issued.target(), 77);
  const v1::TraceEntry& sampled = Entry(group, "sampled");
  EXPECT_EQ(sampled.attempt(), 2u);
  EXPECT_EQ(sampled.lease(), 31u);
  EXPECT_EQ(sampled.policy_version(), 6u);
  EXPECT_EQ(sampled.source(), "record/rank-0000.groups");
  const v1::TraceEntry& scored = Entry(group, "scored");
  EXPECT_EQ(scored.scores(), "ok");
  EXPECT_EQ(scored.ranker(), "ranker-1");
  EXPECT_EQ(scored.text(), "head click: target 0.5, 4 completions 0.125 to 0.75, 2 negatives 0.25 to 0.5");
  const v1::TraceEntry& judged = Entry(group, "judged");
  EXPECT_EQ(judged.policy_version(), 7u);
  EXPECT_EQ(judged.text(), "the gate is closed, admission 0, staleness 1");
  const v1::TraceEntry& ended = Entry(group, "ended");
  EXPECT_EQ(ended.source(), "ledger.csv");
  EXPECT_EQ(ended.time().seconds(), absl::ToUnixSeconds(At(30)));
  EXPECT_THAT(Gaps(group), ElementsAre(kActorGap));
}

TEST_F(TraceJobTest, WhatIsNotRecordedSaysHowItWouldBeKnown) {
  Submit();
  Reserve(0);
  run_->EndStep(0);
  run_->SaveCheckpoint(1);
  const v1::GroupTrace group = TraceOne(0);
  EXPECT_EQ(group.summary(), "trained in step 0: open");
  EXPECT_THAT(Gaps(group),
              ElementsAre("attempt, lease, policy version, ranker and verdict", kActorGap, "when it was trained"));
  EXPECT_EQ(group.unknown(0).why(), "the job does not record its groups");
  EXPECT_THAT(group.unknown(0).remedy(), HasSubstr("set rl.record: true"));
}

TEST_F(TraceJobTest, ARecordThatEndsEarlySaysSo) {
  Submit(", record: true, record_mib: 3");
  for (uint64_t step = 0; step < 2; ++step) run_->EndStep(step);
  Record(0);
  run_->SaveCheckpoint(2);
  const v1::GroupTrace group = TraceOne(4);
  EXPECT_EQ(group.unknown(0).why(), "the record ends with step 0, as its size has a bound");
  EXPECT_EQ(group.unknown(0).remedy(), "set rl.record_mib above 3");
}

TEST_F(TraceJobTest, AStepThatNoCheckpointHasYetMayBeTrainedAgain) {
  Submit(", record: true");
  run_->EndStep(0);
  run_->SaveCheckpoint(1);
  Record(1);
  const v1::GroupTrace group = TraceOne(5);
  EXPECT_EQ(group.state(), "trained");
  EXPECT_THAT(group.summary(), HasSubstr("by the record; the ledger has it from the next checkpoint on"));
  EXPECT_EQ(Entry(group, "ended").source(), "record/rank-0000.groups");
  EXPECT_EQ(Entry(group, "issued").user(), 1);
  EXPECT_FALSE(Entry(group, "issued").has_position());
}

TEST_F(TraceJobTest, BadDataAndUnsampledGroupsAreToldApart) {
  Submit(", record: true");
  GroupRecord bad;
  bad.ordinal = 0;
  bad.bad_data = true;
  GroupRecord unsampled;
  unsampled.ordinal = 1;
  unsampled.reason = unsampled.gate_reason = GateReason::kUnsampled;
  run_->Record({bad, unsampled});
  const v1::GroupTrace failed = TraceOne(0);
  EXPECT_EQ(failed.state(), "failed");
  EXPECT_EQ(failed.reason(), "bad_data");
  const v1::GroupTrace alone = TraceOne(1);
  EXPECT_EQ(alone.reason(), "unsampled");
  EXPECT_EQ(Entry(alone, "judged").text(), "the gate is closed, admission 0, no completions");
  EXPECT_THAT(Events(alone), ElementsAre("issued", "judged", "ended", "job", "job"));
}

TEST_F(TraceJobTest, AnOpenGroupHasItsLastAttemptAndWhatWouldBecomeOfIt) {
  Submit();
  for (uint64_t step = 0; step < 4; ++step) Reserve(step);
  EXPECT_THAT(TraceOne(4).summary(),
              HasSubstr("issued for step 1, and there is no checkpoint yet; the job is running"));
  run_->EndStep(0);
  run_->SaveCheckpoint(1);
  const v1::GroupTrace leased = TraceOne(4);
  EXPECT_EQ(leased.state(), "open");
  EXPECT_THAT(leased.summary(),
              HasSubstr("not ended at the checkpoint of step 1; the job is running, at step 0; the next "
                        "checkpoint tells more"));
  EXPECT_EQ(Entry(leased, "open").attempt(), 2u);
  EXPECT_EQ(Entry(leased, "open").source(), "checkpoints/step-00000001");
  const v1::GroupTrace waiting = TraceOne(5);
  EXPECT_FALSE(Entry(waiting, "open").has_attempt());
  const v1::GroupTrace since = TraceOne(12);  // issued after the checkpoint
  EXPECT_EQ(since.state(), "open");
  EXPECT_EQ(Entry(since, "issued").epoch(), epoch_);
  ASSERT_TRUE(store_->Apply(id_, JobInput::kKill, "", 12, At(50)).ok());
  EXPECT_THAT(TraceOne(4).summary(), HasSubstr("the job is cancelled, at step 0, and would issue it again if it was "
                                               "resumed"));
}

TEST_F(TraceJobTest, ACancelledGroupWasNeverJudged) {
  Submit();
  run_->EndStep(0);
  run_->EndStep(1, "time_limit", TerminalState::kCancelled);
  run_->SaveCheckpoint(1);
  const v1::GroupTrace group = TraceOne(6);
  EXPECT_EQ(group.summary(), "cancelled before step 1 was trained: time_limit");
  EXPECT_THAT(Gaps(group), ElementsAre(kActorGap));
}

TEST_F(TraceJobTest, WhatIsNotIssuedIsAnAnswerAndWhatNeverCanBeIsAMistake) {
  Submit();
  Reserve(0);
  const v1::GroupTrace group = TraceOne(39);
  EXPECT_EQ(group.state(), "not_issued");
  EXPECT_EQ(group.summary(), "not issued: it is of step 9, and the job is running, at step 0 of 10");
  EXPECT_THAT(Events(group), IsEmpty());
  EXPECT_THAT(Gaps(group), IsEmpty());
  const absl::Status beyond = Refusal({40});
  EXPECT_EQ(beyond.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(beyond.message(), "no group of this job has the ordinal 40: its 10 steps of 4 groups have 0 to 39");
}

TEST_F(TraceJobTest, EachGroupIsToldOnceInTheOrderAsked) {
  Submit();
  const v1::TraceResponse trace = Trace({7, 3, 7}).value();
  EXPECT_EQ(trace.job_id(), id_);
  ASSERT_EQ(trace.groups_size(), 2);
  EXPECT_EQ(trace.groups(0).ordinal(), 7u);
  EXPECT_EQ(trace.groups(1).ordinal(), 3u);
  EXPECT_THAT(std::string(Refusal({}).message()), HasSubstr("want 1 to 100, got 0"));
  EXPECT_THAT(std::string(Refusal(std::vector<uint64_t>(101)).message()), HasSubstr("want 1 to 100, got 101"));
}

TEST_F(TraceJobTest, AJobOfAnotherKindAndNoJobAreRefused) {
  id_ = SubmitYaml("kind: sft\nname: n\ndata: d\n");
  EXPECT_EQ(Refusal({0}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Refusal({0}).message()), HasSubstr("is not of an rl job, and others have no groups"));
  id_ = "nope";
  EXPECT_EQ(Refusal({0}).code(), absl::StatusCode::kNotFound);
}

TEST_F(TraceJobTest, OfALongStoryTheLastLinesAreTold) {
  Submit();
  run_->EndStep(0);
  run_->SaveCheckpoint(1);
  std::vector<LogLine> lines;
  for (int i = 0; i < 50; ++i) lines.push_back({"error", absl::StrCat("line ", i)});
  Report(0, 5, lines);
  Report(1, 6);
  const std::vector<std::string> events = Events(TraceOne(0));
  EXPECT_EQ(std::count(events.begin(), events.end(), "job"), 20);
}

TEST_F(TraceJobTest, AFolderAloneIsTracedWithoutTimes) {
  Submit(", record: true");
  Record(0);
  run_->EndStep(0, "difficulty");
  run_->SaveCheckpoint(1);
  EXPECT_THAT(std::string(TraceFolder(run_->path(), {0}).status().message()), HasSubstr("there is no spec.yaml in it"));
  TracedRun::Write(JoinPath(run_->path(), "spec.yaml"), Spec(", record: true"));
  const v1::TraceResponse trace = TraceFolder(run_->path() + "/", {1, 8}).value();
  EXPECT_EQ(trace.job_id(), id_) << "the folder's name";
  EXPECT_EQ(trace.groups(0).summary(), "trained in step 0: difficulty");
  EXPECT_THAT(Events(trace.groups(0)), ElementsAre("issued", "sampled", "scored", "judged", "ended"));
  EXPECT_THAT(Gaps(trace.groups(0)),
              ElementsAre(kActorGap, "when it was trained, and what happened to the job meanwhile"));
  EXPECT_EQ(trace.groups(1).summary(), "not issued: it is of step 2, and the run's last checkpoint is of step 1 of 10");
  EXPECT_EQ(TraceFolder(run_->path(), {40}).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace sluice::learner
