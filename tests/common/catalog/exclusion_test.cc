#include "common/catalog/exclusion.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "common/random/random.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Items 0 and 3 share the leaf of (5, 7), number 2; item 1 has leaf 0, item 2 leaf 1.
Trie Colliding() { return *Trie::Build(2, {5, 7, 4, 9, 5, 6, 5, 7}); }

TEST(ExclusionTest, ALeafIsKeptOutOnlyWithAllOfItsItems) {
  const Trie trie = Colliding();
  EXPECT_THAT(ExcludedLeaves(trie, {0}), IsEmpty()) << "item 3 could never be recommended";
  EXPECT_THAT(ExcludedLeaves(trie, {3}), IsEmpty());
  EXPECT_THAT(ExcludedLeaves(trie, {3, 0}), ElementsAre(2));
  EXPECT_THAT(ExcludedLeaves(trie, {2, 0, 1}), ElementsAre(0, 1));
  EXPECT_THAT(ExcludedLeaves(trie, {}), IsEmpty());
}

TEST(ExclusionTest, OrderAndDoublesDoNotMatter) {
  EXPECT_THAT(ExcludedLeaves(Colliding(), {3, 2, 0, 3, 2}), ElementsAre(1, 2));
  EXPECT_THAT(ExcludedLeaves(Colliding(), {0, 0}), IsEmpty()) << "one item twice is not both items";
}

TEST(ExclusionTest, AgreesWithALookAtEveryLeafOfRandomCatalogs) {
  Random random(7);
  for (int round = 0; round < 50; ++round) {
    std::vector<int32_t> tokens;
    for (int item = 0; item < 30; ++item) {
      tokens.push_back(3 + static_cast<int32_t>(random.Below(4)));
      tokens.push_back(7 + static_cast<int32_t>(random.Below(4)));
    }
    const Trie trie = *Trie::Build(2, tokens);
    std::vector<int32_t> items;
    for (int i = 0; i < 20; ++i) items.push_back(static_cast<int32_t>(random.Below(30)));
    const std::set<int32_t> set(items.begin(), items.end());
    std::vector<int32_t> want;
    for (int32_t leaf = 0; leaf < trie.num_leaves(); ++leaf) {
      size_t among = 0;
      for (const int32_t item : trie.ItemsOfLeaf(leaf)) among += set.count(item);
      if (among == trie.ItemsOfLeaf(leaf).size()) want.push_back(leaf);
    }
    EXPECT_EQ(ExcludedLeaves(trie, items), want) << "round " << round;
  }
}

}  // namespace
}  // namespace sluice
