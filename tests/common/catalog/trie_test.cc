#include "common/catalog/trie.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/random/random.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Tuple = std::vector<int32_t>;

Trie BuildOrDie(int levels, const std::vector<int32_t>& tokens) {
  auto trie = Trie::Build(levels, tokens);
  EXPECT_TRUE(trie.ok()) << trie.status();
  return *std::move(trie);
}

std::vector<int32_t> ToVector(absl::Span<const int32_t> span) { return {span.begin(), span.end()}; }

TEST(TrieTest, ASmallCatalogHasTheDocumentedLayout) {
  // Items 0..3 are (5,7) (4,9) (5,6) (5,7): nodes 0 root, 1 "4", 2 "5", 3 "4 9", 4 "5 6", 5 "5 7".
  const Trie trie = BuildOrDie(2, {5, 7, 4, 9, 5, 6, 5, 7});
  EXPECT_EQ(trie.num_nodes(), 6);
  EXPECT_EQ(trie.num_edges(), 5);
  EXPECT_EQ(trie.num_leaves(), 3);
  EXPECT_EQ(trie.num_items(), 4);
  EXPECT_EQ(ToVector(trie.ChildrenOf(Trie::kRoot).tokens), (Tuple{4, 5}));
  EXPECT_EQ(trie.ChildrenOf(Trie::kRoot).first_node, 1);
  EXPECT_EQ(ToVector(trie.ChildrenOf(2).tokens), (Tuple{6, 7}));
  EXPECT_EQ(trie.ChildrenOf(2).first_node, 4);
  EXPECT_TRUE(trie.ChildrenOf(5).tokens.empty());
  EXPECT_EQ(trie.Child(2, 7), 5);
  EXPECT_EQ(trie.Child(1, 7), Trie::kNone);
  EXPECT_EQ(trie.Child(5, 7), Trie::kNone);
  EXPECT_EQ(trie.LeafOfNode(5), 2);
  EXPECT_EQ(trie.NodeOfLeaf(2), 5);
  EXPECT_FALSE(trie.IsLeaf(2));
  EXPECT_TRUE(trie.IsLeaf(3));
  EXPECT_EQ(ToVector(trie.ItemsOfLeaf(2)), (Tuple{0, 3}));
  EXPECT_EQ(trie.num_colliding_items(), 2);
  EXPECT_EQ(trie.max_fanout(0), 2);
  EXPECT_EQ(trie.max_fanout(1), 2);
}

// Compares every query with a set of tuples.
void CheckAgainstEnumeration(int levels, const std::vector<int32_t>& tokens, const std::vector<int32_t>& probes) {
  const Trie trie = BuildOrDie(levels, tokens);
  std::map<Tuple, std::vector<int32_t>> items_of;  // ordered as leaves must be
  std::vector<std::map<Tuple, std::set<int32_t>>> legal(levels);
  const int64_t items = tokens.size() / levels;
  for (int32_t item = 0; item < items; ++item) {
    const Tuple tuple(tokens.begin() + item * levels, tokens.begin() + (item + 1) * levels);
    items_of[tuple].push_back(item);
    for (int level = 0; level < levels; ++level) {
      legal[level][Tuple(tuple.begin(), tuple.begin() + level)].insert(tuple[level]);
    }
  }
  ASSERT_EQ(trie.num_items(), items);
  ASSERT_EQ(trie.num_leaves(), static_cast<int64_t>(items_of.size()));
  int32_t leaf = 0;
  int64_t colliding = 0;
  for (const auto& [tuple, on_leaf] : items_of) {
    EXPECT_EQ(ToVector(trie.TokensOfLeaf(leaf)), tuple);
    EXPECT_EQ(ToVector(trie.ItemsOfLeaf(leaf)), on_leaf);
    EXPECT_EQ(trie.FindLeaf(tuple), leaf);
    for (const int32_t item : on_leaf) EXPECT_EQ(trie.LeafOfItem(item), leaf);
    if (on_leaf.size() > 1) colliding += on_leaf.size();
    ++leaf;
  }
  EXPECT_EQ(trie.num_colliding_items(), colliding);
  int64_t nodes = trie.num_leaves();
  int32_t want_node = 0;  // nodes are numbered breadth first, prefixes of one length in order
  for (int level = 0; level < levels; ++level) {
    size_t fanout = 0;
    for (const auto& [prefix, continuations] : legal[level]) {
      int32_t node = Trie::kRoot;
      for (const int32_t token : prefix) node = trie.Child(node, token);
      EXPECT_EQ(node, want_node++);
      EXPECT_FALSE(trie.IsLeaf(node));
      const Trie::Children children = trie.ChildrenOf(node);
      EXPECT_EQ(ToVector(children.tokens), Tuple(continuations.begin(), continuations.end()));
      for (size_t i = 0; i < children.tokens.size(); ++i) {
        EXPECT_EQ(trie.Child(node, children.tokens[i]), children.first_node + static_cast<int32_t>(i));
      }
      for (const int32_t probe : probes) {
        EXPECT_EQ(trie.Child(node, probe) != Trie::kNone, continuations.count(probe) > 0) << probe;
      }
      fanout = std::max(fanout, continuations.size());
    }
    EXPECT_EQ(trie.max_fanout(level), static_cast<int32_t>(fanout));
    nodes += legal[level].size();
  }
  EXPECT_EQ(trie.num_nodes(), nodes);
  EXPECT_EQ(trie.num_edges(), nodes - 1);
}

TEST(TrieTest, RandomCatalogsAgreeWithAnEnumeration) {
  Random random(1);
  for (int round = 0; round < 200; ++round) {
    const int levels = 1 + static_cast<int>(random.Below(5));
    const int64_t items = 1 + random.Below(300);
    const int32_t codes = 1 + static_cast<int32_t>(random.Below(12));
    // Levels of a vocabulary have tokens of their own; other catalogs share them.
    const int32_t stride = random.Below(2) == 0 ? 0 : codes;
    std::vector<int32_t> tokens;
    for (int64_t i = 0; i < items * levels; ++i) {
      tokens.push_back(static_cast<int32_t>(random.Below(codes)) + static_cast<int32_t>(i % levels) * stride);
    }
    SCOPED_TRACE(absl::StrCat("round ", round));
    CheckAgainstEnumeration(levels, tokens, {-1, 0, 1, codes - 1, codes, 2 * codes, 1 << 24});
    if (HasFailure()) return;
  }
}

TEST(TrieTest, FarTokensNeedNoLargeTable) {
  std::vector<int32_t> tokens = {0, (1 << 24) - 1, (1 << 24) - 1, 0, 12345, 1 << 20, 0, 3};
  CheckAgainstEnumeration(2, tokens, {-1, 0, 5, 12345, 12346, (1 << 24) - 1, 1 << 24});
  EXPECT_LT(BuildOrDie(2, tokens).memory_bytes(), 1 << 16);
}

TEST(TrieTest, IncompleteAndOverlongIdsAreNotInTheCatalog) {
  const Trie trie = BuildOrDie(3, {1, 2, 3});
  EXPECT_EQ(trie.FindLeaf({1, 2, 3}), 0);
  EXPECT_EQ(trie.FindLeaf({1, 2}), Trie::kNone);
  EXPECT_EQ(trie.FindLeaf({1, 2, 3, 4}), Trie::kNone);
  EXPECT_EQ(trie.FindLeaf({1, 2, 4}), Trie::kNone);
  EXPECT_EQ(trie.FindLeaf({}), Trie::kNone);
}

TEST(TrieTest, OneHundredThousandItemsTakeAtMostAHundredBytesEach) {
  Random random(3);
  std::vector<int32_t> tokens;
  for (int i = 0; i < 100000 * 4; ++i) tokens.push_back(3 + i % 4 * 256 + static_cast<int32_t>(random.Below(256)));
  EXPECT_LE(BuildOrDie(4, tokens).memory_bytes(), 100 * 100000);
}

TEST(TrieTest, TheVersionNamesTheCatalog) {
  const std::string version = BuildOrDie(2, {1, 2, 3, 4}).version();
  // printf 'levels 2\n%s' "$(printf '\1\0\0\0\2\0\0\0\3\0\0\0\4\0\0\0' | sha256sum | cut -d' ' -f1)" | sha256sum
  EXPECT_EQ(version, "8c27044f75fde966120ef4a552ec741ae45305e12444d1f7b737a8194895a481");
  EXPECT_EQ(BuildOrDie(2, {1, 2, 3, 4}).version(), version);
  EXPECT_NE(BuildOrDie(2, {3, 4, 1, 2}).version(), version) << "item numbers matter";
  EXPECT_NE(BuildOrDie(1, {1, 2, 3, 4}).version(), version);
  EXPECT_NE(BuildOrDie(2, {1, 2, 3, 5}).version(), version);
}

TEST(TrieTest, BadTokensAreRefusedWithTheItem) {
  const auto message = [](int levels, const std::vector<int32_t>& tokens) {
    const auto trie = Trie::Build(levels, tokens);
    EXPECT_EQ(trie.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(trie.status().message());
  };
  EXPECT_THAT(message(2, {}), HasSubstr("at least one item"));
  EXPECT_THAT(message(2, {1, 2, 3}), HasSubstr("got 3 tokens"));
  EXPECT_THAT(message(0, {1}), HasSubstr("got 0"));
  EXPECT_THAT(message(9, std::vector<int32_t>(9, 1)), HasSubstr("got 9"));
  EXPECT_THAT(message(2, {1, 2, 1, -1}), HasSubstr("item 1, level 1: token -1"));
  EXPECT_THAT(message(2, {1 << 24, 2}), HasSubstr("item 0, level 0: token 16777216"));
}

}  // namespace
}  // namespace sluice
