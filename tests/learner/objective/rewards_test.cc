#include "learner/objective/rewards.h"

#include <cmath>
#include <limits>
#include <numeric>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "learner/objective/advantages.h"

namespace sluice::learner {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

ScoredGroup TwoCompletions() {
  ScoredGroup group;
  group.completions.resize(2);
  group.negative_leaves = {7};
  group.score_status = ScoreStatus::kOk;
  group.heads = {{"click", {0.5f, -1.0f}, 2.0f, {0.25f}}, {"order", {9, 9}, 9, {9}}};
  return group;
}

RewardOptions Head(const std::string& name) {
  RewardOptions options;
  options.head = name;
  return options;
}

std::vector<int32_t> SixteenLeaves() {
  std::vector<int32_t> leaves(16);
  std::iota(leaves.begin(), leaves.end(), 0);
  return leaves;
}

TEST(RewardsOfTest, TakesTheHeadThatTheSpecNames) {
  const GroupRewards rewards = RewardsOf(TwoCompletions(), Head("click")).value();
  EXPECT_THAT(rewards.completions, ElementsAre(0.5, -1.0));
  EXPECT_EQ(rewards.target, 2.0);
  EXPECT_THAT(rewards.negatives, ElementsAre(0.25));
}

TEST(RewardsOfTest, AMissingHeadIsNotFoundAndTheMessageListsTheOthers) {
  const absl::Status status = RewardsOf(TwoCompletions(), Head("score")).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("click, order"));
}

TEST(RewardsOfTest, AFailedScoreIsUnavailableNeverANumber) {
  ScoredGroup group = TwoCompletions();
  group.score_status = ScoreStatus::kUnavailable;
  group.score_error = "deadline of 5 s passed";
  const absl::Status status = RewardsOf(group, Head("click")).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("deadline of 5 s passed"));
}

TEST(RewardsOfTest, RefusesScoresThatAreNotFiniteAndSaysWhich) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    ScoredGroup group = TwoCompletions();
    group.heads[0].completion_scores[1] = bad;
    const absl::Status status = RewardsOf(group, Head("click")).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr("completion 1"));
    group = TwoCompletions();
    group.heads[0].target_score = bad;
    EXPECT_EQ(RewardsOf(group, Head("click")).status().code(), absl::StatusCode::kInvalidArgument);
    group = TwoCompletions();
    group.heads[0].negative_scores[0] = bad;
    EXPECT_EQ(RewardsOf(group, Head("click")).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(RewardsOfTest, RefusesAnotherNumberOfScoresThanCandidates) {
  ScoredGroup group = TwoCompletions();
  group.heads[0].completion_scores.push_back(1);
  EXPECT_THAT(std::string(RewardsOf(group, Head("click")).status().message()), HasSubstr("want 2 completion scores"));
}

TEST(RuleRewardsTest, OneForTheTargetAndItsCopies) { EXPECT_THAT(RuleRewards({3, 5, 3}, 3), ElementsAre(1, 0, 1)); }

// Constants of the released ReRe code (methods.md 2.2), G = 16.
TEST(RankingRewardsTest, ReproducesTheWeightsOfTheReleasedCode) {
  const double want[] = {.16377, .10333, .08189, .07053, .06336, .05834, .05459, .05166,
                         .04930, .04734, .04568, .04426, .04302, .04192, .04094, .04007};
  // With the target at place 1 the others show their weights, and the other way
  // round.
  const std::vector<double> first = RankingRewards(SixteenLeaves(), 0);
  const std::vector<double> last = RankingRewards(SixteenLeaves(), 15);
  EXPECT_EQ(first[0], 0);
  EXPECT_EQ(last[15], 0);
  for (int k = 0; k < 15; ++k) EXPECT_NEAR(last[k], -want[k], 5.1e-6) << k;
  for (int k = 1; k < 16; ++k) EXPECT_NEAR(first[k], -want[k], 5.1e-6) << k;
}

TEST(RankingRewardsTest, WithRuleRewardAndZScoreGivesTheReleasedAdvantages) {
  const auto advantages = [](int32_t target, bool ranking) {
    std::vector<double> rewards = RuleRewards(SixteenLeaves(), target);
    if (ranking) {
      const std::vector<double> penalties = RankingRewards(SixteenLeaves(), target);
      for (size_t k = 0; k < rewards.size(); ++k) rewards[k] += penalties[k];
    }
    return ZScoreAdvantages(rewards).values;
  };
  EXPECT_NEAR(advantages(0, true)[0], 3.7407, 5.1e-5);
  EXPECT_NEAR(advantages(0, true)[1], -0.4292, 5.1e-5);
  EXPECT_NEAR(advantages(0, true)[15], -0.1901, 5.1e-5);
  EXPECT_NEAR(advantages(7, true)[7], 3.7220, 5.1e-5);
  EXPECT_NEAR(advantages(7, true)[0], -0.6236, 5.1e-5);
  EXPECT_NEAR(advantages(7, true)[15], -0.1617, 5.1e-5);
  EXPECT_NEAR(advantages(4, false)[4], 3.7485, 5.1e-5);
  EXPECT_NEAR(advantages(4, false)[9], -0.2499, 5.1e-5);
}

TEST(RankingRewardsTest, TheNegativesOfThePrintedEquationSumToMinusOne) {
  for (int32_t target = 0; target < 16; ++target) {
    const std::vector<double> rewards =
        RankingRewards(SixteenLeaves(), target, RankingDenominator::kNegativesOnly, RankingNoHit::kPenalize);
    EXPECT_NEAR(std::accumulate(rewards.begin(), rewards.end(), 0.0), -1.0, 1e-12);
    EXPECT_EQ(rewards[target], 0);
  }
  // Two negatives at places 1 and 3: 1/ln 2 and 1/ln 4 are as 2 to 1, so -2/3
  // and -1/3.
  const std::vector<double> small = RankingRewards({4, 9, 5}, 9, RankingDenominator::kNegativesOnly);
  EXPECT_NEAR(small[0], -2.0 / 3, 1e-12);
  EXPECT_NEAR(small[2], -1.0 / 3, 1e-12);
}

TEST(RankingRewardsTest, AGroupWithoutTheTargetIsZeroInTheCodeAndPenalisedInThePaper) {
  EXPECT_THAT(RankingRewards({1, 2, 3}, 9), Each(0.0));
  const std::vector<double> penalized =
      RankingRewards({1, 2, 3}, 9, RankingDenominator::kAllSlots, RankingNoHit::kPenalize);
  EXPECT_NEAR(std::accumulate(penalized.begin(), penalized.end(), 0.0), -1.0, 1e-12);
  EXPECT_LT(penalized[0], penalized[1]);
}

TEST(RankingRewardsTest, OnlyCopiesOfTheTargetLeaveNothingToPenalise) {
  EXPECT_THAT(RankingRewards({9, 9}, 9, RankingDenominator::kNegativesOnly), Each(0.0));
}

TEST(PrefixRewardsTest, CountsLevelsSharedFromTheFirstOn) {
  const std::vector<std::vector<int32_t>> tokens = {{1, 2, 3}, {1, 2, 9}, {1, 9, 3}, {9, 2, 3}};
  const std::vector<absl::Span<const int32_t>> spans(tokens.begin(), tokens.end());
  EXPECT_EQ(SharedPrefixes(spans, {1, 2, 3}), (std::vector<int>{3, 2, 1, 0}));
  const std::vector<double> rewards = PrefixRewards(spans, {1, 2, 3});
  EXPECT_DOUBLE_EQ(rewards[0], 1);
  EXPECT_DOUBLE_EQ(rewards[1], 2.0 / 3);
  EXPECT_DOUBLE_EQ(rewards[3], 0);
}

TEST(CalibrationTest, TheFloorKeepsWhatIsAboveIt) {
  std::vector<double> rewards = {0.05, 0.1, 0.8, -2};
  ApplyFloor(0.1, absl::MakeSpan(rewards));
  EXPECT_EQ(rewards, (std::vector<double>{0, 0, 0.8, 0}));
}

TEST(CalibrationTest, TheTargetGetsTheGroupsLargestReward) {
  std::vector<double> rewards = {0.5, 0.9, 0.2};
  RaisePositivesToMax({4, 5, 6}, 6, absl::MakeSpan(rewards));
  EXPECT_EQ(rewards, (std::vector<double>{0.5, 0.9, 0.9}));
  RaisePositivesToMax({4, 5, 6}, 7, absl::MakeSpan(rewards));
  EXPECT_EQ(rewards, (std::vector<double>{0.5, 0.9, 0.9}));
}

TEST(SemanticRewardsTest, AreCosinesOfItemVectorsAndOneForTheTargetItself) {
  // Leaf 0 is the target; 1 points the same way, 2 across, 3 against it, 4 nowhere, 5 at 60 degrees.
  const LeafVectors vectors{2, {2, 0, 0.5f, 0, 0, 3, -1, 0, 0, 0, 1, std::sqrt(3.0f)}};
  const std::vector<double> rewards = SemanticRewards({5, 1, 0, 2, 3, 4}, 0, vectors);
  EXPECT_THAT(rewards, ::testing::Pointwise(::testing::DoubleNear(1e-7), {0.5, 1.0, 1.0, 0.0, -1.0, 0.0}));
  // A target whose vector has no direction is still itself.
  EXPECT_THAT(SemanticRewards({4, 1}, 4, vectors), ElementsAre(1, 0));
}

}  // namespace
}  // namespace sluice::learner
