#include "learner/run/best_policy.h"

#include <map>
#include <string>

#include "gtest/gtest.h"

namespace sluice::learner {
namespace {

std::map<std::string, double> Metrics(double hit_rate, double gain) {
  return {{BestPolicy::kMetric, hit_rate}, {BestPolicy::kTieBreak, gain}};
}

TEST(BestPolicyTest, HitRateDecidesAndGainBreaksItsTies) {
  BestPolicy best;
  EXPECT_TRUE(best.Offer(0, Metrics(.5, .3)));
  EXPECT_FALSE(best.Offer(1, Metrics(.4, .9)));
  EXPECT_FALSE(best.Offer(2, Metrics(.5, .3))) << "the first of equals stays";
  EXPECT_TRUE(best.Offer(3, Metrics(.5, .4)));
  EXPECT_TRUE(best.Offer(4, Metrics(.6, .1)));
  EXPECT_EQ(best.metrics().at("step"), 4);
}

TEST(BestPolicyTest, PatienceCountsHitRatesAloneAndSurvivesACheckpoint) {
  BestPolicy best;
  best.Offer(0, Metrics(.5, .3));
  best.Offer(1, Metrics(.5, .4));
  best.Offer(2, Metrics(.5, .2));
  EXPECT_EQ(best.without_gain(), 2);
  std::map<std::string, double> numbers;
  best.Save(&numbers);
  BestPolicy restored;
  restored.Restore(numbers);
  EXPECT_EQ(restored.without_gain(), 2);
  EXPECT_EQ(restored.metrics(), best.metrics());
  EXPECT_EQ(restored.metrics().at("step"), 1);
  restored.Offer(3, Metrics(.51, 0));
  EXPECT_EQ(restored.without_gain(), 0);
}

}  // namespace
}  // namespace sluice::learner
