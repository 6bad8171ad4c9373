#include "reward_server/ranker/aggregate.h"

#include <cmath>
#include <limits>

#include "gtest/gtest.h"

namespace sluice::reward {
namespace {

TEST(AggregateItemsTest, BestIsTheHighestAndMeanTheAverage) {
  EXPECT_EQ(AggregateItems({-3.0f, 1.0f, -1.0f}, ItemAggregation::kBest), 1.0f);
  EXPECT_EQ(AggregateItems({-3.0f, 1.0f, -1.0f}, ItemAggregation::kMean), -1.0f);
  EXPECT_EQ(AggregateItems({-2.5f}, ItemAggregation::kBest), -2.5f);
  EXPECT_EQ(AggregateItems({-2.5f}, ItemAggregation::kMean), -2.5f);
}

TEST(AggregateItemsTest, AMissingNumberNeverHidesBehindTheOthers) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  for (const ItemAggregation aggregation : {ItemAggregation::kBest, ItemAggregation::kMean}) {
    EXPECT_FALSE(std::isfinite(AggregateItems({1.0f, nan}, aggregation)));
    EXPECT_FALSE(std::isfinite(AggregateItems({nan, 1.0f}, aggregation)));
    EXPECT_FALSE(std::isfinite(AggregateItems({1.0f, -infinity}, aggregation)));
  }
}

}  // namespace
}  // namespace sluice::reward
