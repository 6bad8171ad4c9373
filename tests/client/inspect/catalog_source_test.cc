#include "client/inspect/catalog_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/file/file.h"

namespace sluice {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

absl::StatusOr<std::shared_ptr<const Trie>> LoadText(const std::string& text) {
  const std::string path = testing::TempDir() + "/catalog_source_test.json";
  EXPECT_TRUE(WriteFileAtomically(path, text).ok());
  return LoadCatalog(path);
}

TEST(CatalogSourceTest, AListOfTokenIdsIsACatalogWithItemsInItsOrder) {
  const auto trie = LoadText("[[5, 9], [3, 7], [5, 9], [3, 8]]");
  ASSERT_TRUE(trie.ok()) << trie.status();
  EXPECT_EQ((*trie)->levels(), 2);
  EXPECT_EQ((*trie)->num_leaves(), 3);
  EXPECT_THAT((*trie)->ItemsOfLeaf((*trie)->FindLeaf({5, 9})), ElementsAre(0, 2));
}

TEST(CatalogSourceTest, WhatIsNoCatalogIsNamed) {
  const auto expect_bad = [](const std::string& text, const std::string& message) {
    const absl::Status status = LoadText(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message)) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr("catalog_source_test.json"));
  };
  expect_bad("[[5, 9], [3", "want a JSON list");
  expect_bad("{}", "want a JSON list");
  expect_bad("[]", "want a JSON list");
  expect_bad("[[5, 9], [3]]", "item 1 is not a list of 2 token ids");
  expect_bad("[[5, 9], [3, -1]]", "item 1 has -1");
  expect_bad("[[5, 9], [3, 1.5]]", "item 1 has 1.5");
  expect_bad("[[5, 99999999999]]", "item 0 has 99999999999");
  expect_bad("[[]]", "level");
}

TEST(CatalogSourceTest, AMissingFileIsNotFound) {
  EXPECT_EQ(LoadCatalog(testing::TempDir() + "/no_such_catalog.json").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace sluice
