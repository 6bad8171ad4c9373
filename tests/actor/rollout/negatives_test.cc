#include "actor/rollout/negatives.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

namespace sluice::actor {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;
using testing::UnorderedElementsAre;

const std::vector<std::vector<int32_t>> kGenerated = {{1, 2, 3}, {3, 4, 5, 5}, {6, 2, 7}};

TEST(NegativesTest, ComeFromOtherPromptsWithoutTheTargetAndTheOwnGroup) {
  // Others generated 3, 4, 5, 6, 2, 7; 2 and 3 are prompt 0's own, 6 is its target.
  EXPECT_THAT(DrawNegatives(kGenerated, 0, 6, 10, 1), UnorderedElementsAre(4, 5, 7));
  EXPECT_THAT(DrawNegatives(kGenerated, 1, -1, 10, 1), UnorderedElementsAre(1, 2, 6, 7));
}

TEST(NegativesTest, AreDistinctAndAsManyAsAsked) {
  for (uint64_t seed = 0; seed < 100; ++seed) {
    const std::vector<int32_t> drawn = DrawNegatives(kGenerated, 1, -1, 3, seed);
    EXPECT_THAT(drawn, SizeIs(3));
    EXPECT_THAT(std::set<int32_t>(drawn.begin(), drawn.end()), SizeIs(3));
  }
}

TEST(NegativesTest, EveryLeafIsEquallyLikelyAtEveryPlace) {
  constexpr int kDraws = 8000;
  std::map<int32_t, int> first, second;
  for (uint64_t seed = 0; seed < kDraws; ++seed) {
    const std::vector<int32_t> drawn = DrawNegatives(kGenerated, 1, -1, 2, seed);
    ++first[drawn[0]];
    ++second[drawn[1]];
  }
  for (const std::map<int32_t, int>& counts : {first, second}) {
    double chi_square = 0;
    for (const int32_t leaf : {1, 2, 6, 7}) {
      const double difference = counts.count(leaf) ? counts.at(leaf) - kDraws / 4.0 : kDraws / 4.0;
      chi_square += difference * difference / (kDraws / 4.0);
    }
    EXPECT_LT(chi_square, 16.27);  // 3 degrees of freedom, 0.999
  }
}

TEST(NegativesTest, AreAFunctionOfTheSeed) {
  EXPECT_EQ(DrawNegatives(kGenerated, 1, -1, 4, 9), DrawNegatives(kGenerated, 1, -1, 4, 9));
  std::set<std::vector<int32_t>> orders;
  for (uint64_t seed = 0; seed < 50; ++seed) orders.insert(DrawNegatives(kGenerated, 1, -1, 4, seed));
  EXPECT_GT(orders.size(), 5);
}

TEST(NegativesTest, ALonelyPromptHasNone) {
  EXPECT_THAT(DrawNegatives(std::vector<std::vector<int32_t>>{{1, 2}}, 0, -1, 4, 1), IsEmpty());
  EXPECT_THAT(DrawNegatives(kGenerated, 0, 6, 0, 1), IsEmpty());
}

}  // namespace
}  // namespace sluice::actor
