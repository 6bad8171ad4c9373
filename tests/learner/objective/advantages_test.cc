#include "learner/objective/advantages.h"

#include <cmath>
#include <numeric>

#include "common/random/random.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice::learner {
namespace {

using ::testing::Each;

TEST(ZScoreAdvantagesTest, UsesTheUnbiasedDeviation) {
  // Rewards 0 and 1: mean 1/2, squares 1/4 + 1/4 over ddof 1, deviation
  // sqrt(1/2).
  const GroupAdvantages result = ZScoreAdvantages({0.0, 1.0});
  EXPECT_DOUBLE_EQ(result.mean, 0.5);
  EXPECT_DOUBLE_EQ(result.deviation, std::sqrt(0.5));
  EXPECT_DOUBLE_EQ(result.values[1], 0.5 / (std::sqrt(0.5) + 1e-4));
  EXPECT_DOUBLE_EQ(result.values[0], -result.values[1]);
}

TEST(ZScoreAdvantagesTest, EqualRewardsGiveExactlyZero) {
  // 0.1 three times: the sum rounds, so a mean and a deviation of it would not
  // be exact.
  const GroupAdvantages result = ZScoreAdvantages({0.1, 0.1, 0.1});
  EXPECT_TRUE(result.zero_variance);
  EXPECT_THAT(result.values, Each(0.0));
  EXPECT_TRUE(ZScoreAdvantages({5.0}).zero_variance);
}

TEST(ZScoreAdvantagesTest, SumsToZeroAndIgnoresShiftsOfTheReward) {
  Random random(3);
  for (int trial = 0; trial < 50; ++trial) {
    std::vector<double> rewards(2 + random.Below(15));
    std::vector<double> shifted;
    for (double& reward : rewards) shifted.push_back((reward = random.Normal()) + 7.5);
    const GroupAdvantages result = ZScoreAdvantages(rewards);
    const GroupAdvantages moved = ZScoreAdvantages(shifted);
    EXPECT_NEAR(std::accumulate(result.values.begin(), result.values.end(), 0.0), 0.0, 1e-10);
    for (size_t i = 0; i < rewards.size(); ++i) EXPECT_NEAR(result.values[i], moved.values[i], 1e-10);
  }
}

TEST(ZScoreAdvantagesTest, NegativeWeightScalesOnlyNegativeAdvantages) {
  const std::vector<double> rewards = {0, 1, 5};
  const GroupAdvantages full = ZScoreAdvantages(rewards, 1.0);
  const GroupAdvantages half = ZScoreAdvantages(rewards, 0.5);
  const GroupAdvantages none = ZScoreAdvantages(rewards, 0.0);
  ASSERT_LT(full.values[1], 0);
  EXPECT_DOUBLE_EQ(half.values[1], 0.5 * full.values[1]);
  EXPECT_DOUBLE_EQ(half.values[2], full.values[2]);
  EXPECT_EQ(none.values[0], 0);
  EXPECT_DOUBLE_EQ(none.values[2], full.values[2]);
}

}  // namespace
}  // namespace sluice::learner
