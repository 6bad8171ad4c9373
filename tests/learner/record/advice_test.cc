#include "learner/record/advice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/learner/record/recorded_market.h"

namespace sluice::learner {
namespace {

using testing::HasSubstr;
using testing::Not;

RlOptions Options() {
  RlOptions options;
  options.record = true;
  return options;
}

TEST(AdviceTest, RegionsThatDifferAskForTheCombinedGate) {
  const RecordedRun run = RecordMarket({.steps = 30}, Options());
  const Advice advice = Advise(run, Options(), std::nullopt).value();
  EXPECT_EQ(advice.steps, 30u);
  EXPECT_TRUE(advice.history_test);
  EXPECT_TRUE(advice.regions_differ);
  EXPECT_EQ(advice.objective, ObjectiveKind::kGated);
  EXPECT_EQ(advice.gate.kind, GateKind::kCombined);
  // Means by hand over the raw numbers.
  double right = 0, pairs = 0, scored = 0;
  for (const auto& step : run.steps) {
    for (const GroupRecord& record : step) {
      if (!record.group || record.group->heads.empty() || record.group->behavior_version == 1) continue;
      ++scored;
      double mine = 0;
      for (const float h : record.group->heads[0].history_scores) {
        for (const float n : record.group->heads[0].negative_scores) mine += h > n;
      }
      right += mine / 40;
      ++pairs;
    }
  }
  EXPECT_EQ(static_cast<double>(advice.scored), scored);
  EXPECT_NEAR(*advice.all.history, right / pairs, 1e-12);
  ASSERT_EQ(advice.by_region.size(), 2u);
  for (const ReliabilitySummary& row : advice.by_region) {
    EXPECT_NEAR(*row.history, row.name == "region 7" ? 1 : 0.5, 0.03) << row.name;
    EXPECT_EQ(*row.reliable, row.name == "region 7" ? 1 : 0);
  }
  EXPECT_EQ(advice.by_region[0].groups + advice.by_region[1].groups, advice.scored);
  uint64_t by_difficulty = 0;
  for (const ReliabilitySummary& row : advice.by_difficulty) by_difficulty += row.groups;
  EXPECT_EQ(by_difficulty, advice.scored);
}

TEST(AdviceTest, LambdaIsTheRecordedOneAndAControlHasItsDose) {
  const RecordedRun run = RecordMarket({.steps = 30}, Options());
  const Advice advice = Advise(run, Options(), std::nullopt).value();
  const double recorded_dose = Replay(run, Options(), Options())->dose();
  EXPECT_EQ(advice.lambda, Options().lambda);
  EXPECT_NEAR(*advice.equal_dose_lambda * advice.rate, recorded_dose, 1e-12);
  EXPECT_LT(*advice.equal_dose_lambda, advice.lambda);  // the combined gate admits more
}

TEST(AdviceTest, ARankerThatIsRightForAllNeedsNoRegions) {
  const Advice advice =
      Advise(RecordMarket({.steps = 30, .reliable_share = 1}, Options()), Options(), std::nullopt).value();
  EXPECT_FALSE(advice.regions_differ);
  EXPECT_EQ(advice.gate.kind, GateKind::kHistory);
  EXPECT_THAT(AdviceText(advice), HasSubstr("compare with a mixture at lambda 3"));
}

TEST(AdviceTest, WithoutHistoryScoresTheLabelFreeTestStandsIn) {
  const Advice advice =
      Advise(RecordMarket({.steps = 30, .reliable_share = 1, .history = false}, Options()), Options(), std::nullopt)
          .value();
  EXPECT_FALSE(advice.history_test);
  EXPECT_EQ(advice.gate.kind, GateKind::kOwnCross);
  EXPECT_EQ(advice.all.history, std::nullopt);
  EXPECT_THAT(AdviceText(advice), Not(HasSubstr("what a trained ranker remembers")));
}

TEST(AdviceTest, ScoresThatAreNoiseAreLeftAlone) {
  const Advice advice = Advise(RecordMarket({.steps = 30, .noise = true}, Options()), Options(), std::nullopt).value();
  EXPECT_EQ(advice.objective, ObjectiveKind::kNllOnly);
  EXPECT_FALSE(advice.regions_differ);
  EXPECT_THAT(AdviceText(advice), HasSubstr("rl.objective: nll_only"));
}

TEST(AdviceTest, GainsAreOfTheTableAlone) {
  const RecordedRun run = RecordMarket({.steps = 30}, Options());
  const std::string text = AdviceText(Advise(run, Options(), std::nullopt).value());
  EXPECT_THAT(text, HasSubstr("unknown: no table of measured gains was given"));
  EXPECT_THAT(text, HasSubstr("What this cannot know"));
  const auto gains = ParseGains(
      "error,share,gate,lambda,gain,low,high\npop,0.2,combined,3,.01,.005,.015\npop,0.5,combined,3,.02,.01,.03\n"
      "fine,0.5,combined,3,.03,.02,.04\npop,0.5,history,3,.9,.8,1\n");
  ASSERT_TRUE(gains.ok()) << gains.status();
  const Advice advice = Advise(run, Options(), *gains).value();
  ASSERT_EQ(advice.gains.size(), 2u);  // about half of the groups fail
  EXPECT_EQ(advice.gains[0].gain, 0.02);
  EXPECT_EQ(advice.gains[1].error, "fine");
  EXPECT_EQ(AdviceJson(advice)["gains"].size(), 2u);
  EXPECT_EQ(AdviceJson(advice)["advice"]["kind"], "combined");
  EXPECT_THAT(AdviceText(Advise(run, Options(), std::vector<GainRow>()).value()), HasSubstr("no row for this gate"));
}

TEST(AdviceTest, ATableOfGainsNamesItsBadLine) {
  const absl::Status status = ParseGains("error,share,gate,lambda,gain,low,high\npop,x,combined,3,1,1,1\n").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("line 2: want error,share,gate,lambda,gain,low,high"));
}

TEST(AdviceTest, ARecordWithoutScoresHasNoAdvice) {
  RlOptions unscored = Options();
  unscored.objective = ObjectiveKind::kNllOnly;
  EXPECT_EQ(Advise(RecordMarket({.steps = 1}, unscored), unscored, std::nullopt).status().code(),
            absl::StatusCode::kFailedPrecondition);
  RecordedRun empty = RecordMarket({.steps = 1}, Options());
  empty.steps.clear();
  EXPECT_THAT(Advise(empty, Options(), std::nullopt).status().message(), HasSubstr("none of the 0 recorded groups"));
}

}  // namespace
}  // namespace sluice::learner
