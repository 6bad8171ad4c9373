#include "common/market/popularity_sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <vector>

namespace sluice {
namespace {

// Every share within four standard errors of the weights'.
void ExpectShares(const std::vector<double>& weights, uint64_t seed) {
  const PopularitySampler sampler(weights);
  Random random(seed);
  constexpr int kDraws = 200'000;
  std::vector<double> count(weights.size(), 0.0);
  for (int i = 0; i < kDraws; ++i) ++count[sampler.Draw(random)];
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  for (size_t i = 0; i < weights.size(); ++i) {
    const double share = weights[i] / total;
    EXPECT_NEAR(count[i] / kDraws, share, 4 * std::sqrt(share * (1 - share) / kDraws) + 1e-12) << "item " << i;
  }
}

TEST(PopularitySamplerTest, DrawsInProportionToTheWeights) {
  ExpectShares({1}, 1);
  ExpectShares({1, 1, 1, 1}, 2);
  ExpectShares({100, 1, 5, 0.5, 20}, 3);
}

TEST(PopularitySamplerTest, NeverDrawsAWeightOfZero) {
  const PopularitySampler sampler(std::vector<double>{0, 3, 0, 0.1, 0, 0, 7, 0});
  Random random(4);
  for (int i = 0; i < 100'000; ++i) {
    const int32_t item = sampler.Draw(random);
    ASSERT_TRUE(item == 1 || item == 3 || item == 6) << item;
  }
}

TEST(PopularitySamplerTest, FollowsAPowerLawOverManyItems) {
  std::vector<double> weights(5000);
  for (size_t r = 0; r < weights.size(); ++r) weights[r] = std::pow(static_cast<double>(r + 1), -0.7);
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  const PopularitySampler sampler(weights);
  Random random(5);
  constexpr int kDraws = 400'000;
  double head = 0;
  for (int i = 0; i < kDraws; ++i) head += sampler.Draw(random) < 500;
  const double share = std::accumulate(weights.begin(), weights.begin() + 500, 0.0) / total;
  EXPECT_NEAR(head / kDraws, share, 4 * std::sqrt(share * (1 - share) / kDraws));
}

}  // namespace
}  // namespace sluice
