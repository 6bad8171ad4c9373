#include "learner/objective/advantages.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <vector>

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

TEST(BoundByTargetTest, OnlyPushesUpWhatIsAtLeastAsGoodAsTheRealItem) {
  std::vector<double> advantages = {1.5, 0.5, 0.2, -1};
  BoundByTarget({3, 2, 1.9, 0}, 2, absl::MakeSpan(advantages));
  EXPECT_EQ(advantages, (std::vector<double>{1.5, 0.5, 0, -1}));
}

TEST(WindowTest, WeighsNegativesAroundItsPlaceWithMeanOne) {
  std::vector<double> advantages = {2, -1, -1, -1};
  WeighNegativesByWindow({1, 2, 3, 4}, 2, 1, 0, absl::MakeSpan(advantages));
  EXPECT_EQ(advantages[0], 2);
  // exp(0), exp(-1), exp(-2), divided by their mean.
  const double mean = (1 + std::exp(-1) + std::exp(-2)) / 3;
  EXPECT_NEAR(advantages[1], -1 / mean, 1e-12);
  EXPECT_NEAR(advantages[2], -std::exp(-1) / mean, 1e-12);
  EXPECT_NEAR(advantages[1] + advantages[2] + advantages[3], -3, 1e-12);
}

TEST(WindowTest, AThresholdMakesThePlateauWider) {
  std::vector<double> advantages = {-1, -1, -1};
  WeighNegativesByWindow({1, 2, 3}, 2, 1, -1, absl::MakeSpan(advantages));
  EXPECT_EQ(advantages, (std::vector<double>{-1, -1, -1}));  // all within one place
  WeighNegativesByWindow({1, 2, 3}, 9000, 1, 0, absl::MakeSpan(advantages));
  EXPECT_EQ(advantages, (std::vector<double>{-1, -1, -1}));  // too far to tell apart in a double
}

TEST(RecastTest, PairsTheBestHitWithTheClosestMiss) {
  EXPECT_EQ(RecastAdvantages({0, 3, 2, 2, 3}, 3, {1, 2, 4, 3, 5}), (std::vector<double>{0, 1, 0, -1, 0}));
  EXPECT_EQ(RecastAdvantages({0, 2}, 3, {1, 2}), (std::vector<double>{0, 0}));  // no hit
  EXPECT_EQ(RecastAdvantages({3, 3}, 3, {1, 2}), (std::vector<double>{0, 0}));  // no miss
}

TEST(RecastTest, TheTargetTakesThePlaceOfTheLeastSimilar) {
  EXPECT_EQ(LeastSimilar({2, 0, 1, 0}, {1, 2, 3, 4}), 3u);
  EXPECT_EQ(LeastSimilar({2, 0, 1, 0}, {1, 4, 3, 2}), 1u);
}

using Tokens = std::vector<std::vector<int32_t>>;

std::vector<absl::Span<const int32_t>> Spans(const Tokens& tokens) { return {tokens.begin(), tokens.end()}; }

// Eq. 15-19 as sets: for every prefix h of every length, the members below it, their next tokens, and the z-score
// (population deviation) of the mean rewards, looked up anew for every member.
double NodeAdvantage(const Tokens& tokens, const std::vector<double>& rewards, size_t member, size_t level) {
  const auto shares = [&](size_t other, size_t length) {
    return std::equal(tokens[member].begin(), tokens[member].begin() + static_cast<std::ptrdiff_t>(length),
                      tokens[other].begin());
  };
  std::set<int32_t> children;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (shares(i, level)) children.insert(tokens[i][level]);
  }
  if (children.size() < 2) return 0;
  std::vector<double> means;
  double own = 0;
  for (const int32_t child : children) {
    double sum = 0;
    int count = 0;
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (!shares(i, level) || tokens[i][level] != child) continue;
      sum += rewards[i];
      ++count;
    }
    means.push_back(sum / count);
    if (child == tokens[member][level]) own = sum / count;
  }
  double mean = 0, variance = 0;
  for (const double value : means) mean += value / static_cast<double>(means.size());
  for (const double value : means) variance += (value - mean) * (value - mean) / static_cast<double>(means.size());
  return (own - mean) / (std::sqrt(variance) + 1e-4);
}

TEST(SiblingAdvantagesTest, AgreesWithTheEquationsByBruteForce) {
  Random random(8);
  for (int trial = 0; trial < 100; ++trial) {
    const size_t group_size = 2 + random.Below(15);
    Tokens tokens;
    std::vector<double> rewards;
    for (size_t i = 0; i < group_size; ++i) {
      tokens.push_back({static_cast<int32_t>(random.Below(2)), static_cast<int32_t>(random.Below(3)),
                        static_cast<int32_t>(random.Below(2))});
      rewards.push_back(random.Normal());
    }
    const auto per_candidate = SiblingAdvantages(Spans(tokens), rewards, SiblingMean::kPerCandidate);
    const auto per_node = SiblingAdvantages(Spans(tokens), rewards, SiblingMean::kPerNode);
    const auto per_token = SiblingAdvantages(Spans(tokens), rewards, SiblingMean::kPerActiveToken);
    double active = 0;
    for (size_t i = 0; i < group_size; ++i) {
      for (size_t l = 0; l < 3; ++l) active += NodeAdvantage(tokens, rewards, i, l) != 0;
    }
    for (size_t i = 0; i < group_size; ++i) {
      for (size_t l = 0; l < 3; ++l) {
        const double want = NodeAdvantage(tokens, rewards, i, l);
        double through = 0;
        for (const auto& other : tokens) {
          through += std::equal(other.begin(), other.begin() + static_cast<std::ptrdiff_t>(l) + 1, tokens[i].begin());
        }
        EXPECT_NEAR(per_candidate[i][l], want / static_cast<double>(group_size), 1e-9);
        EXPECT_NEAR(per_node[i][l], want / static_cast<double>(group_size) / through, 1e-9);
        if (active > 0) {
          EXPECT_NEAR(per_token[i][l], want / active, 1e-9);
        }
      }
    }
  }
}

TEST(SiblingAdvantagesTest, AnExactHitStandsOutAtEachBranchingAndNowhereElse) {
  // The target is (1, 1, 1). Below (2,) nothing differs in reward.
  const Tokens tokens = {{1, 1, 1}, {1, 1, 2}, {1, 2, 1}, {2, 1, 1}, {2, 2, 1}};
  const auto weights = SiblingAdvantages(Spans(tokens), {1, 0, 0, 0, 0}, SiblingMean::kPerCandidate);
  for (size_t l = 0; l < 3; ++l) EXPECT_GT(weights[0][l], 0) << l;
  EXPECT_LT(weights[1][2], 0);              // the hit's sibling at the last level
  EXPECT_EQ(weights[1][1], weights[0][1]);  // one node, one advantage
  EXPECT_EQ(weights[2][2], 0);              // an only child
  EXPECT_EQ(weights[3][1], 0);              // equal rewards
  EXPECT_EQ(weights[4][1], 0);
}

TEST(SiblingAdvantagesTest, ConstantRewardsMoveNothingAndOrderDoesNotMatter) {
  Tokens tokens = {{1, 1}, {1, 2}, {2, 1}};
  for (const auto& member : SiblingAdvantages(Spans(tokens), {0.1, 0.1, 0.1}, SiblingMean::kPerActiveToken)) {
    EXPECT_EQ(member, (std::vector<double>{0, 0}));
  }
  const auto before = SiblingAdvantages(Spans(tokens), {1, 2, 4}, SiblingMean::kPerNode);
  std::swap(tokens[0], tokens[2]);
  const auto after = SiblingAdvantages(Spans(tokens), {4, 2, 1}, SiblingMean::kPerNode);
  EXPECT_EQ(before[0], after[2]);
  EXPECT_EQ(before[1], after[1]);
}

}  // namespace
}  // namespace sluice::learner
