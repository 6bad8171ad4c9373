#include "learner/run/run_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "common/file/file.h"
#include "learner/evaluate/example_file.h"
#include "learner/evaluate/outcome_file.h"
#include "learner/evaluate/strata.h"
#include "learner/run/results.h"
#include "tests/learner/evaluate/some_outcomes.h"

namespace sluice::learner {
namespace {

using ::testing::HasSubstr;

class RunReportTest : public testing::Test {
 protected:
  std::string Path(const std::string& name) {
    return JoinPath(testing::TempDir(),
                    std::string(testing::UnitTest::GetInstance()->current_test_info()->name()) + "-" + name);
  }

  // The folder of an evaluation with these outcomes.
  std::string Evaluated(const std::string& name, const OutcomeTable& table) {
    const std::string folder = Path(name);
    EXPECT_TRUE(RemoveAll(folder).ok());
    EXPECT_TRUE(MakeDirectories(folder).ok());
    EXPECT_TRUE(WriteOutcomes(JoinPath(folder, "outcomes.csv"), table).ok());
    RankingMetrics metrics({.num_leaves = 1, .levels = 3}, 50);
    for (const OutcomeRow& row : table.rows) metrics.Add(row.outcome);
    RunResults results;
    results.kind = "evaluate";
    results.texts["name"] = name;
    results.numbers["metrics"] = metrics.ToMap();
    for (auto& [stratum, values] : Stratify(table)) results.numbers[stratum] = std::move(values);
    EXPECT_TRUE(WriteResults(JoinPath(folder, "results.json"), results).ok());
    return folder;
  }

  static const ReportTable* Find(const ReportData& report, const std::string& title) {
    for (const ReportTable& table : report.tables) {
      if (table.title == title) return &table;
    }
    return nullptr;
  }
};

TEST_F(RunReportTest, TwoEvaluationsAreComparedWithIntervalsAndCutIntoStrata) {
  const OutcomeTable before = SomeOutcomes(300, 1);
  OutcomeTable after = before;
  for (OutcomeRow& row : after.rows) row.outcome.item_rank = 1;
  const std::string folders[] = {Evaluated("before", before), Evaluated("after", after)};
  const auto report = BuildReport("two", folders);
  ASSERT_TRUE(report.ok()) << report.status();
  const ReportTable* differences = Find(*report, "Differences to before");
  ASSERT_NE(differences, nullptr);
  ASSERT_EQ(differences->rows.size(), 2u);
  const double missed = 1 - ReadResults(JoinPath(folders[0], "results.json"))->numbers["metrics"]["hr@1"];
  EXPECT_THAT(differences->rows[1].texts.at("hr@1"), HasSubstr(absl::StrFormat("%+.4f [", missed)));
  EXPECT_THAT(differences->rows[1].texts.at("hr@1"), HasSubstr("**"));
  EXPECT_THAT(differences->note, HasSubstr("300 users"));
  const ReportTable* strata = Find(*report, "By difficulty decile");
  ASSERT_NE(strata, nullptr);
  EXPECT_EQ(strata->rows.size(), 10u);
  EXPECT_EQ(strata->columns.size(), 5u);  // users, range, and one for each run
  EXPECT_NE(Find(*report, "By popularity decile"), nullptr);
  EXPECT_NE(Find(*report, "By events before the target"), nullptr);
  EXPECT_NE(Find(*report, "Lists"), nullptr);
  EXPECT_THAT(RenderReport(*report), HasSubstr("HR@10 by difficulty decile"));
}

TEST_F(RunReportTest, OneEvaluationHasIntervals) {
  const std::string folders[] = {Evaluated("alone", SomeOutcomes(300, 1))};
  const auto report = BuildReport("one", folders);
  ASSERT_TRUE(report.ok()) << report.status();
  const ReportTable* intervals = Find(*report, "Intervals");
  ASSERT_NE(intervals, nullptr);
  const double hits = ReadResults(JoinPath(folders[0], "results.json"))->numbers["metrics"]["hr@10"];
  EXPECT_THAT(intervals->rows[0].texts.at("hr@10"), HasSubstr(absl::StrFormat("%.4f [", hits)));
  EXPECT_THAT(intervals->note, HasSubstr("300 users"));
  EXPECT_EQ(Find(*report, "Differences to alone"), nullptr);
}

TEST_F(RunReportTest, ExamplesOfTheSameUsersStandSideBySide) {
  const std::string folders[] = {Evaluated("before", SomeOutcomes(30, 1)), Evaluated("after", SomeOutcomes(30, 2))};
  ExampleLists lists = {.step = 0, .users = {{"u1", 4, {"a", "b"}, "c", 0, {{"d", -1.5}, {"e", std::nullopt}}}}};
  ASSERT_TRUE(WriteFileAtomically(JoinPath(folders[0], "examples.json"), ExamplesToJson({lists})).ok());
  lists.users[0].items = {{"c", -0.25}};
  lists.users[0].target_rank = 1;
  ASSERT_TRUE(WriteFileAtomically(JoinPath(folders[1], "examples.json"), ExamplesToJson({lists})).ok());
  const auto report = BuildReport("two", folders);
  ASSERT_TRUE(report.ok()) << report.status();
  ASSERT_EQ(report->examples.size(), 1u);
  const ReportExample& example = report->examples[0];
  EXPECT_EQ(example.title, "User u1, event 5");
  ASSERT_EQ(example.lists.size(), 2u);
  EXPECT_EQ(example.lists[0].name, "before");
  EXPECT_EQ(example.lists[0].note, "The target is not in the list.");
  EXPECT_EQ(example.lists[0].items[0].score, "-1.50");
  EXPECT_EQ(example.lists[0].items[1].score, "");
  EXPECT_EQ(example.lists[1].note, "The target is at place 1.");
  EXPECT_THAT(RenderReport(*report), HasSubstr("<li class=\"hit\"><span>c</span> <b>-0.25</b></li>"));

  // A damaged file costs the examples, not the report.
  for (const std::string& folder : folders) {
    ASSERT_TRUE(WriteFileAtomically(JoinPath(folder, "examples.json"), "{").ok());
  }
  EXPECT_TRUE(BuildReport("two", folders)->examples.empty());
}

TEST_F(RunReportTest, ATrainingJobShowsItsListsBeforeAndAfterAndWhereItRan) {
  const std::string folder = Path("sft");
  ASSERT_TRUE(MakeDirectories(folder).ok());
  RunResults results;
  results.kind = "sft";
  results.texts["name"] = "mine";
  results.texts["environment/processors"] = "2 of some kind";
  ASSERT_TRUE(WriteResults(JoinPath(folder, "results.json"), results).ok());
  std::vector<ExampleLists> lists;
  for (const uint64_t step : {0, 60}) {
    KeepExamples({.step = step, .users = {{"u1", 4, {"a"}, "c", 0, {{"d", -1.5}}}}}, &lists);
  }
  ASSERT_TRUE(WriteFileAtomically(JoinPath(folder, "examples.json"), ExamplesToJson(lists)).ok());
  const std::string folders[] = {folder};
  const auto report = BuildReport("one", folders);
  ASSERT_TRUE(report.ok()) << report.status();
  ASSERT_EQ(report->examples.size(), 1u);
  EXPECT_EQ(report->examples[0].lists[0].name, "mine, before (step 0)");
  EXPECT_EQ(report->examples[0].lists[1].name, "mine, step 60");
  ASSERT_EQ(report->environment.size(), 1u);
  EXPECT_EQ(report->environment[0].name, "processors");
  EXPECT_EQ(report->environment[0].value, "2 of some kind");
  EXPECT_THAT(report->commands,
              testing::ElementsAre("sluice-learner run " + folder + "/spec.yaml --run-folder " + folder + "-again"));
}

TEST_F(RunReportTest, EvaluationsOfOtherUsersAreShownButNotCompared) {
  const std::string folders[] = {Evaluated("some", SomeOutcomes(30, 1)), Evaluated("fewer", SomeOutcomes(20, 1))};
  const auto report = BuildReport("two", folders);
  ASSERT_TRUE(report.ok()) << report.status();
  const ReportTable* differences = Find(*report, "Differences to some");
  ASSERT_NE(differences, nullptr);
  EXPECT_TRUE(differences->rows.empty());
  EXPECT_THAT(differences->note, HasSubstr("Not compared: 'some' was evaluated on 30 users and 'fewer' on 20"));
}

TEST_F(RunReportTest, TheStratifiedAnalysisHasATableAndAPlot) {
  const std::string folder = Path("rl");
  ASSERT_TRUE(MakeDirectories(folder).ok());
  RunResults results;
  results.kind = "rl";
  results.texts["name"] = "gated";
  for (const char* cell : {"all", "d0_c0", "d0_c1", "d1_c0", "d1_c1"}) {
    results.numbers[std::string("cell/") + cell] = {{"groups", 5},
                                                    {"share", 0.25},
                                                    {"rank_correction", 12.5},
                                                    {"random_share", 0.1},
                                                    {"random_rank_correction", 11}};
  }
  results.numbers["cell/d0_c1"].erase("rank_correction");  // no group is there
  ASSERT_TRUE(WriteResults(JoinPath(folder, "results.json"), results).ok());
  const std::string folders[] = {folder};
  const auto report = BuildReport("one", folders);
  ASSERT_TRUE(report.ok()) << report.status();
  const ReportTable* table = Find(*report, "Difficulty and discriminability, gated");
  ASSERT_NE(table, nullptr);
  EXPECT_EQ(table->rows.size(), 5u);
  ASSERT_EQ(report->charts.size(), 1u);
  EXPECT_EQ(report->charts[0].categories.size(), 5u);
  EXPECT_EQ(report->charts[0].series[0].points.size(), 4u);
  EXPECT_EQ(report->charts[0].series[1].points.size(), 5u);
}

}  // namespace
}  // namespace sluice::learner
