#include "learner/run/run_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "common/model_config/model_folder.h"
#include "learner/run/results.h"

namespace sluice::learner {
namespace {

using testing::HasSubstr;

class RunFolderTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ = JoinPath(testing::TempDir(), testing::UnitTest::GetInstance()->current_test_info()->name());
    ASSERT_TRUE(RemoveAll(path_).ok());
  }
  std::string path_;
};

TEST_F(RunFolderTest, ReadsBackMetricsAndLeavesOutATornLine) {
  auto folder = RunFolder::Open(path_).value();
  ASSERT_TRUE(folder->AppendMetrics({.step = 1, .time_s = 2.5, .values = {{"loss/nll", 3.25}}}).ok());
  ASSERT_TRUE(
      folder->AppendMetrics({.step = 2, .values = {{"x", std::numeric_limits<double>::quiet_NaN()}, {"y", 1}}}).ok());
  const std::string file = JoinPath(path_, "metrics.jsonl");
  ASSERT_TRUE(WriteFileAtomically(file, ReadFile(file).value() + "{\"step\": 3, \"lo").ok());
  const std::vector<MetricsRow> rows = folder->ReadMetrics().value();
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].values.at("loss/nll"), 3.25);
  EXPECT_EQ(rows[0].time_s, 2.5);
  EXPECT_EQ(rows[1].values.count("x"), 0u);  // NaN is "not measured", not a number
}

TEST_F(RunFolderTest, TruncationDropsWhatAResumeAbandons) {
  auto folder = RunFolder::Open(path_).value();
  for (uint64_t step = 1; step <= 5; ++step) ASSERT_TRUE(folder->AppendMetrics({.step = step}).ok());
  ASSERT_TRUE(folder->TruncateMetrics(3).ok());
  ASSERT_TRUE(folder->AppendMetrics({.step = 4}).ok());
  const std::vector<MetricsRow> rows = folder->ReadMetrics().value();
  ASSERT_EQ(rows.size(), 4u);
  EXPECT_EQ(rows.back().step, 4u);
}

TEST_F(RunFolderTest, AStartFromNothingDropsWhatAnEarlierAttemptLeft) {
  auto folder = RunFolder::Open(path_).value();
  ASSERT_TRUE(folder->AppendMetrics({.step = 0}).ok());
  ASSERT_TRUE(folder->TruncateMetrics(std::nullopt).ok());
  EXPECT_EQ(folder->ReadMetrics().value().size(), 0u);
  ASSERT_TRUE(folder->AppendMetrics({.step = 0}).ok());
  EXPECT_EQ(folder->ReadMetrics().value().size(), 1u);
}

TEST_F(RunFolderTest, EventsFollowTheMetricsOverAResume) {
  const NowFunction now = [] { return absl::FromUnixSeconds(1'700'000'000); };
  {
    auto folder = RunFolder::Open(path_, now).value();
    ASSERT_TRUE(folder->TruncateMetrics(std::nullopt).ok());
    EXPECT_FALSE(PathExists(folder->tensorboard()));
    ASSERT_TRUE(folder->AppendMetrics({.step = 1, .values = {{"x", 1}}}).ok());
    ASSERT_TRUE(folder->SyncMetrics().ok());
  }
  auto folder = RunFolder::Open(path_, now).value();
  ASSERT_TRUE(folder->TruncateMetrics(1).ok());
  EXPECT_EQ(ListDirectory(folder->tensorboard()).value().size(), 2u);  // the second begins with the restart
  EXPECT_EQ(folder->TakeEventsProblem(), "");
  // Who only reads, for a report say, leaves no file.
  ASSERT_TRUE(RunFolder::Open(path_).value()->TruncateMetrics(1).ok());
  EXPECT_EQ(ListDirectory(folder->tensorboard()).value().size(), 2u);
}

TEST_F(RunFolderTest, EventsThatWereLostAreWrittenAnewFromTheMetrics) {
  const NowFunction now = [] { return absl::FromUnixSeconds(1'700'000'000); };
  for (uint64_t step = 1; step <= 5; ++step) {
    ASSERT_TRUE(RunFolder::Open(path_).value()->AppendMetrics({.step = step, .values = {{"x", 1}}}).ok());
  }
  auto folder = RunFolder::Open(path_, now).value();
  ASSERT_TRUE(folder->TruncateMetrics(3).ok());
  const std::vector<std::string> files = ListDirectory(folder->tensorboard()).value();
  ASSERT_EQ(files.size(), 1u);
  const int64_t three = FileBytes(JoinPath(folder->tensorboard(), files[0])).value();
  ASSERT_TRUE(folder->AppendMetrics({.step = 4, .values = {{"x", 1}}}).ok());
  const int64_t version = 16 + 9 + 2 + 2 + 13;  // the first record
  EXPECT_EQ(FileBytes(JoinPath(folder->tensorboard(), files[0])).value() - version, (three - version) / 3 * 4);
}

TEST_F(RunFolderTest, EventsThatCannotBeWrittenStopNothing) {
  auto folder = RunFolder::Open(path_, [] { return absl::UnixEpoch(); }).value();
  ASSERT_TRUE(WriteFileAtomically(folder->tensorboard(), "a file where the folder should be").ok());
  ASSERT_TRUE(folder->AppendMetrics({.step = 1, .values = {{"x", 1}}}).ok());
  EXPECT_THAT(folder->TakeEventsProblem(), HasSubstr("TensorBoard gets nothing more of this attempt"));
  ASSERT_TRUE(folder->AppendMetrics({.step = 2, .values = {{"x", 1}}}).ok());
  ASSERT_TRUE(folder->SyncMetrics().ok());
  EXPECT_EQ(folder->TakeEventsProblem(), "");  // said once
  EXPECT_EQ(folder->ReadMetrics().value().size(), 2u);
}

TEST_F(RunFolderTest, FindsTheModelOfARun) {
  EXPECT_EQ(ResolveModelFolder(path_).status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(MakeDirectories(JoinPath(path_, "export/best")).ok());
  ASSERT_TRUE(WriteFileAtomically(JoinPath(path_, "export/best/config.json"), "{}").ok());
  EXPECT_EQ(ResolveModelFolder(path_).value(), JoinPath(path_, "export/best"));
}

TEST_F(RunFolderTest, ResultsRoundTripAndDamageIsNamed) {
  ASSERT_TRUE(MakeDirectories(path_).ok());
  const std::string file = JoinPath(path_, "results.json");
  RunResults results;
  results.kind = "evaluate";
  results.numbers["metrics"]["hr@10"] = 0.0625;
  results.texts["split"] = "test";
  ASSERT_TRUE(WriteResults(file, results).ok());
  EXPECT_EQ(ReadResults(file).value().numbers["metrics"]["hr@10"], 0.0625);
  ASSERT_TRUE(WriteFileAtomically(file, "[1]").ok());
  EXPECT_EQ(ReadResults(file).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(ReadResults(file).status().message(), HasSubstr(file));
}

}  // namespace
}  // namespace sluice::learner
