#include "learner/trace/run_trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "tests/testing/temporary_folder.h"
#include "tests/testing/traced_run.h"

namespace sluice::learner {
namespace {

using ::testing::HasSubstr;

class RunTraceTest : public testing::Test {
 protected:
  std::string Failure() {
    const absl::Status status = TraceRun(run_.path(), {0}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
    return std::string(status.message());
  }

  TemporaryFolder folder_;
  TracedRun run_{folder_ / "run"};
};

TEST_F(RunTraceTest, OfARunThatHasNothingYetNothingIsKnown) {
  const RunTrace trace = TraceRun(run_.path(), {3}).value();
  EXPECT_EQ(trace.checkpoint, "");
  EXPECT_EQ(trace.issued, 0u);
  EXPECT_FALSE(trace.has_record);
  ASSERT_EQ(trace.groups.size(), 1u);
  EXPECT_EQ(trace.groups[0].ordinal, 3u);
  EXPECT_FALSE(trace.groups[0].ended || trace.groups[0].open_attempt || trace.groups[0].record);
}

TEST_F(RunTraceTest, EndedOpenAndNotIssuedAreToldApartByTheNewestCheckpoint) {
  run_.EndStep(0);
  run_.SaveCheckpoint(1);
  run_.EndStep(1);
  run_.SaveCheckpoint(2);
  run_.EndStep(2);  // and the next checkpoint was never written
  ASSERT_TRUE(MakeDirectories(run_.CheckpointFolder(3) + ".1.0.tmp").ok());
  const RunTrace trace = TraceRun(run_.path(), {11, 5, 8, 9, 12}).value();
  EXPECT_EQ(trace.checkpoint, "checkpoints/step-00000002");
  EXPECT_EQ(trace.checkpoint_steps, 2u);
  EXPECT_EQ(trace.issued, 12u);
  ASSERT_EQ(trace.groups.size(), 5u);
  EXPECT_EQ(trace.groups[0].open_attempt, 0u) << "11, of the other rank";
  EXPECT_EQ(trace.groups[1].ended, (TerminalRow{5, 1, 2, TerminalState::kTrained, "open", 1}));
  EXPECT_EQ(trace.groups[1].open_attempt, std::nullopt);
  EXPECT_EQ(trace.groups[2].open_attempt, 2u);
  EXPECT_EQ(trace.groups[2].ended, std::nullopt) << "the line of 8 is behind the checkpoint's mark";
  EXPECT_EQ(trace.groups[3].open_attempt, 0u);
  EXPECT_FALSE(trace.groups[4].ended || trace.groups[4].open_attempt);
}

TEST_F(RunTraceTest, ARecordedGroupIsFoundWithItsFileWhetherItHasEndedOrNot) {
  std::vector<GroupRecord> step(4);
  for (uint64_t i = 0; i < 4; ++i) {
    step[i].ordinal = i;
    step[i].learner_version = 7;
  }
  run_.Record(step);
  const RunTrace trace = TraceRun(run_.path(), {2, 4}).value();
  EXPECT_TRUE(trace.has_record);
  EXPECT_EQ(trace.record_end, 0u);
  ASSERT_TRUE(trace.groups[0].record.has_value());
  EXPECT_EQ(trace.groups[0].record->record.learner_version, 7u);
  EXPECT_EQ(trace.groups[0].record->file, "rank-0000.groups");
  EXPECT_FALSE(trace.groups[1].record.has_value());
  const RunTrace bounded = TraceRun(run_.path(), {2}, {.max_record_bytes = 10}).value();
  EXPECT_FALSE(bounded.groups[0].record.has_value());
  EXPECT_THAT(bounded.record_problem, HasSubstr("at most 10 are looked through"));
}

TEST_F(RunTraceTest, DamageOfTheTableIsNamedWithWhatToDo) {
  run_.EndStep(0);
  run_.SaveCheckpoint(1);
  const std::string whole = ReadFile(run_.table_path()).value();
  TracedRun::Write(run_.table_path(), whole.substr(0, whole.size() - 3));
  EXPECT_THAT(Failure(), HasSubstr("restore the run folder from a backup, or resume the job"));
  std::string changed = whole;
  changed[whole.find("open")] = 'O';
  TracedRun::Write(run_.table_path(), changed);
  EXPECT_THAT(Failure(), HasSubstr("SHA-256 differs"));
  // A table too long for that is read where it is needed.
  EXPECT_TRUE(TraceRun(run_.path(), {3}, {.max_digested_bytes = 10}).ok());
  ASSERT_TRUE(RemoveAll(run_.table_path()).ok());
  EXPECT_THAT(Failure(), HasSubstr("ledger.csv' is missing"));
}

TEST_F(RunTraceTest, DamageOfTheCheckpointIsNamedWithItsFile) {
  run_.EndStep(0);
  run_.SaveCheckpoint(1);
  const std::string state = JoinPath(run_.CheckpointFolder(1), "state.json");
  const std::string whole = ReadFile(state).value();
  const std::pair<std::string, std::string> cases[] = {
      {"not json", "not a JSON object"},
      {"{}", "there is no 'step'"},
      {R"({"step": 1, "ledgers": 1000000})", "it counts 1000000 ledgers"},
      {R"({"step": 1, "ledgers": -1})", "'ledgers'"},
      {R"({"step": 1, "ledgers": 0, "table": 7})", "'table': want bytes and sha256"},
      {R"({"step": 1, "ledgers": 0, "table": {"sha256": ""}})", "there is no 'bytes'"}};
  for (const auto& [text, said] : cases) {
    TracedRun::Write(state, text);
    EXPECT_THAT(Failure(), HasSubstr("state.json' is damaged: " + said));
  }
  TracedRun::Write(state, whole);
  TracedRun::Write(JoinPath(run_.CheckpointFolder(1), "ledger-1.json"), "[]");
  EXPECT_THAT(Failure(), HasSubstr("ledger-1.json' is damaged"));
}

}  // namespace
}  // namespace sluice::learner
