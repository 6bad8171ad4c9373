#include "learner/ledger/ordinal_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <utility>
#include <vector>

#include "common/random/random.h"

namespace sluice::learner {
namespace {

using testing::ElementsAre;
using testing::Pair;

TEST(OrdinalSetTest, NeighboursMergeIntoOneRange) {
  OrdinalSet set;
  EXPECT_TRUE(set.Add(4, 6));
  EXPECT_TRUE(set.Add(0, 2));
  EXPECT_THAT(set.ranges(), ElementsAre(Pair(0, 2), Pair(4, 6)));
  EXPECT_TRUE(set.Add(2, 4));
  EXPECT_THAT(set.ranges(), ElementsAre(Pair(0, 6)));
}

TEST(OrdinalSetTest, RefusesOverlapAndEmptiness) {
  OrdinalSet set;
  EXPECT_TRUE(set.Add(10, 20));
  EXPECT_FALSE(set.Add(19, 21));
  EXPECT_FALSE(set.Add(5, 11));
  EXPECT_FALSE(set.Add(5, 25));
  EXPECT_FALSE(set.Add(12, 13));
  EXPECT_FALSE(set.Add(30, 30));
  EXPECT_EQ(set.size(), 10u);
}

TEST(OrdinalSetTest, AgreesWithAPlainSet) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    Random random(seed);
    OrdinalSet set;
    std::set<uint64_t> plain;
    for (int i = 0; i < 60; ++i) {
      const uint64_t first = random.Below(80);
      const uint64_t end = first + random.Below(4);
      bool fits = first < end;
      for (uint64_t o = first; o < end; ++o) fits = fits && plain.count(o) == 0;
      EXPECT_EQ(set.Add(first, end), fits);
      if (fits) {
        for (uint64_t o = first; o < end; ++o) plain.insert(o);
      }
    }
    EXPECT_EQ(set.size(), plain.size());
    EXPECT_EQ(set.end(), plain.empty() ? 0 : *plain.rbegin() + 1);
    for (uint64_t o = 0; o < 90; ++o) {
      EXPECT_EQ(set.Contains(o), plain.count(o) > 0) << o;
      const auto above = std::distance(plain.upper_bound(o), plain.end());
      EXPECT_EQ(set.CountAbove(o), static_cast<uint64_t>(above)) << o;
    }
  }
}

}  // namespace
}  // namespace sluice::learner
