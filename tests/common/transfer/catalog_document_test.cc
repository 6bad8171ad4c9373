#include "common/transfer/catalog_document.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/random/random.h"

namespace sluice {
namespace {

std::string Replaced(std::string text, const std::string& from, const std::string& to) {
  text.replace(text.find(from), from.size(), to);
  return text;
}

TEST(CatalogDocumentTest, TheRebuiltTrieHasTheSameVersion) {
  Random random(3);
  for (int round = 0; round < 20; ++round) {
    const int levels = 2 + static_cast<int>(random.Below(3));
    std::vector<int32_t> tokens;
    for (int item = 0; item < 40; ++item) {  // few codes, so that items share leaves
      for (int level = 0; level < levels; ++level) tokens.push_back(3 + level * 4 + static_cast<int>(random.Below(4)));
    }
    const auto trie = Trie::Build(levels, tokens);
    ASSERT_TRUE(trie.ok());
    const auto rebuilt = CatalogFromJson(CatalogToJson(*trie), trie->version());
    ASSERT_TRUE(rebuilt.ok()) << rebuilt.status();
    EXPECT_EQ((*rebuilt)->version(), trie->version());
    for (int32_t item = 0; item < 40; ++item) {
      const auto got = (*rebuilt)->TokensOfLeaf((*rebuilt)->LeafOfItem(item));
      EXPECT_TRUE(std::equal(got.begin(), got.end(), tokens.begin() + item * levels));
    }
  }
}

TEST(CatalogDocumentTest, DamageIsRefused) {
  // Items 0 and 2 share the leaf [3, 5], item 1 is on [4, 5].
  const auto trie = Trie::Build(2, {3, 5, 4, 5, 3, 5});
  ASSERT_TRUE(trie.ok());
  const std::string good = CatalogToJson(*trie);
  ASSERT_EQ(good, R"({"items":[[0,2],[1]],"levels":2,"sids":[[3,5],[4,5]]})");
  for (const std::string& bad :
       {std::string(), good.substr(0, 20), std::string("[]"), Replaced(good, "[0,2]", "[0,1]"),
        Replaced(good, "[0,2]", "[0]"), Replaced(good, "[0,2]", "[0,-2]"), Replaced(good, "[4,5]]", "[4]]"),
        Replaced(good, "[4,5]]", "[4,6]]"), Replaced(good, "\"levels\":2", "\"levels\":3"),
        Replaced(good, "\"levels\":2", "\"levels\":-1"), Replaced(good, ",[4,5]]", "]"),
        // Beyond 32 bits; it used to be cut to 2 and 5.
        Replaced(good, "\"levels\":2", "\"levels\":4294967298"), Replaced(good, "[4,5]]", "[4,4294967301]]"),
        Replaced(good, "[4,5]]", "[4,1e300]]")}) {
    EXPECT_EQ(CatalogFromJson(bad, trie->version()).status().code(), absl::StatusCode::kDataLoss) << bad;
  }
  EXPECT_EQ(CatalogFromJson(good, "another").status().code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(CatalogFromJson(good, trie->version()).ok());
}

}  // namespace
}  // namespace sluice
