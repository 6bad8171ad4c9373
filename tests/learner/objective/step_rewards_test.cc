#include "learner/objective/step_rewards.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "common/random/random.h"

namespace sluice::learner {
namespace {

const std::vector<double> kWeights = {0.3, 0.5, 1};

struct Group {
  std::vector<std::vector<int32_t>> tokens;
  std::vector<std::vector<float>> vectors;
  std::vector<int32_t> target = {1, 1, 1};
  std::vector<float> target_vector;

  std::vector<std::vector<double>> Rewards(StepEmbedding embedding) const {
    return StepRewards({tokens.begin(), tokens.end()}, target, {vectors.begin(), vectors.end()}, target_vector,
                       kWeights, embedding);
  }
};

TEST(StepRewardsTest, RightPrefixesEarnTheirWeightAndWrongOnesPayForTheDistance) {
  Group group;
  group.tokens = {{1, 1, 1}, {1, 2, 1}, {2, 1, 1}};
  group.vectors = {{1, 0}, {0, 1}, {-1, 0}};
  group.target_vector = {2, 0};
  const auto own = group.Rewards(StepEmbedding::kOwnItem);
  EXPECT_EQ(own[0], (std::vector<double>{0.3, 0.5, 1}));
  EXPECT_EQ(own[1], (std::vector<double>{0.3, -0.5, -1}));  // at a right angle
  EXPECT_EQ(own[2], (std::vector<double>{-0.6, -1, -2}));   // opposite; a match below a miss is none
}

TEST(StepRewardsTest, ThePrefixMeanAgreesWithAveragingEachBucketByHand) {
  Random random(5);
  for (int trial = 0; trial < 50; ++trial) {
    Group group;
    for (int i = 0; i < 8; ++i) {
      group.tokens.push_back({static_cast<int32_t>(random.Below(3)), static_cast<int32_t>(random.Below(2)),
                              static_cast<int32_t>(random.Below(2))});
      group.vectors.push_back({static_cast<float>(random.Normal()), static_cast<float>(random.Normal()),
                               static_cast<float>(random.Normal())});
    }
    group.target_vector = {1, 2, -1};
    const auto rewards = group.Rewards(StepEmbedding::kPrefixMean);
    for (size_t i = 0; i < 8; ++i) {
      bool right = true;
      for (size_t l = 0; l < 3; ++l) {
        right = right && group.tokens[i][l] == 1;
        double mean[3] = {0, 0, 0}, count = 0;
        for (size_t j = 0; j < 8; ++j) {
          bool same = true;
          for (size_t k = 0; k <= l; ++k) same = same && group.tokens[i][k] == group.tokens[j][k];
          if (!same) continue;
          ++count;
          for (int e = 0; e < 3; ++e) mean[e] += group.vectors[j][static_cast<size_t>(e)];
        }
        double product = 0, squares = 0;
        for (int e = 0; e < 3; ++e) {
          product += mean[e] / count * group.target_vector[static_cast<size_t>(e)];
          squares += mean[e] / count * mean[e] / count;
        }
        const double cosine = product / std::sqrt(squares * 6);
        EXPECT_NEAR(rewards[i][l], right ? kWeights[l] : -kWeights[l] * (1 - cosine), 1e-9);
      }
    }
  }
}

TEST(StepRewardsTest, AVectorOfNoLengthIsAtARightAngleToAll) {
  Group group;
  group.tokens = {{2, 2, 2}};
  group.vectors = {{0, 0}};
  group.target_vector = {1, 0};
  EXPECT_EQ(group.Rewards(StepEmbedding::kPrefixMean)[0], (std::vector<double>{-0.3, -0.5, -1}));
}

TEST(TemporalDifferenceTest, LooksOneLevelAheadExceptAtTheLast) {
  const std::vector<double> rewards = {0.3, -0.5, -1}, values = {9, 2, 4};
  const std::vector<double> want = {0.3 + 0.99 * 2, -0.5 + 0.99 * 4, -1};
  EXPECT_EQ(TemporalDifferenceTargets(rewards, values, 0.99, Bootstrap::kAlways, true), want);
  EXPECT_EQ(TemporalDifferenceTargets(rewards, values, 0.99, Bootstrap::kFirstTokenWrong, false), want);
  EXPECT_EQ(TemporalDifferenceTargets(rewards, values, 0.99, Bootstrap::kFirstTokenWrong, true), rewards);
}

TEST(TemporalDifferenceTest, TheFixedPointIsTheDiscountedReturn) {
  const std::vector<double> rewards = {0.3, 0.5, -1};
  std::vector<double> values(3, 7);
  for (int sweep = 0; sweep < 3; ++sweep) {
    values = TemporalDifferenceTargets(rewards, values, 0.9, Bootstrap::kAlways, false);
  }
  EXPECT_NEAR(values[0], 0.3 + 0.9 * 0.5 + 0.81 * -1, 1e-12);
  EXPECT_EQ(SquaredValueLoss(values, TemporalDifferenceTargets(rewards, values, 0.9, Bootstrap::kAlways, false)).value,
            0);
}

TEST(ValueLossTest, TheSlopesAreThoseOfTheLossWithTargetsHeld) {
  const std::vector<double> values = {1, -2, 0.5}, targets = {0.5, 1, 0.5};
  const ValueLoss loss = SquaredValueLoss(values, targets);
  for (size_t i = 0; i < values.size(); ++i) {
    std::vector<double> above = values, below = values;
    above[i] += 1e-6;
    below[i] -= 1e-6;
    EXPECT_NEAR(loss.slopes[i],
                (SquaredValueLoss(above, targets).value - SquaredValueLoss(below, targets).value) / 2e-6, 1e-9);
  }
}

TEST(StepWeightsTest, AreReadFromTextAndHaveADefaultForEveryDepth) {
  using Weights = std::vector<double>;
  EXPECT_EQ(ParseStepWeights("", 3).value(), (Weights{0.3, 0.5, 1}));
  EXPECT_EQ(ParseStepWeights("", 4).value(), (Weights{0.3, 0.5, 1, 1}));
  EXPECT_EQ(ParseStepWeights("", 2).value(), (Weights{0.5, 1}));
  EXPECT_EQ(ParseStepWeights("", 1).value(), (Weights{1}));
  EXPECT_EQ(ParseStepWeights(" 0.1 0.2  0.4 0 ", 4).value(), (Weights{0.1, 0.2, 0.4, 0}));
  for (const char* bad : {"0.3 0.5", "0.3 0.5 1 1", "0.3 x 1", "0.3 -1 1", "0.3 inf 1", "0.3,0.5,1"}) {
    EXPECT_EQ(ParseStepWeights(bad, 3).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

}  // namespace
}  // namespace sluice::learner
