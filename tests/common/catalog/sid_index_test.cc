#include "common/catalog/sid_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/file/file.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class SidIndexTest : public ::testing::Test {
 protected:
  SidIndexTest()
      : path_(absl::StrCat(::testing::TempDir(), "/sid_index_",
                           ::testing::UnitTest::GetInstance()->current_test_info()->name(), "_", getpid(), ".json")) {}
  ~SidIndexTest() override { EXPECT_TRUE(RemoveAll(path_).ok()); }

  absl::StatusOr<SidTable> Read(const std::string& text, const std::vector<std::string>& names = {"7", "x"}) {
    EXPECT_TRUE(WriteFileAtomically(path_, text).ok());
    return ReadSidIndex(path_, names, 256);
  }
  std::string Message(const std::string& text) {
    const auto table = Read(text);
    EXPECT_EQ(table.status().code(), absl::StatusCode::kDataLoss) << text;
    EXPECT_THAT(std::string(table.status().message()), HasSubstr(path_));
    return std::string(table.status().message());
  }

  const std::string path_;
};

TEST_F(SidIndexTest, BothFormsAreReadInTheOrderOfTheItems) {
  const auto integers = Read(R"({"x": [3, 255, 0, 1], "other": [9, 9, 9, 9], "7": [3, 255, 0, 1]})");
  ASSERT_TRUE(integers.ok()) << integers.status();
  EXPECT_EQ(integers->levels, 4);
  EXPECT_EQ(integers->codes, 256);
  EXPECT_THAT(integers->item_codes, ElementsAre(3, 255, 0, 1, 3, 255, 0, 1)) << "a collision is kept";
  const auto text = Read(R"({"x": ["<a_3>", "<b_255>", "<c_0>"], "7": ["<a_1>", "<b_2>", "<c_137>"]})");
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(text->levels, 3);
  EXPECT_THAT(text->item_codes, ElementsAre(1, 2, 137, 3, 255, 0));
}

TEST_F(SidIndexTest, WhatDoesNotFitIsRefusedWithTheItem) {
  EXPECT_THAT(Message(R"({"x": [1, 2]})"), HasSubstr("item '7' has no semantic ID (0 others neither)"));
  EXPECT_THAT(Message("{}"), HasSubstr("item '7' has no semantic ID (1 others neither)"));
  EXPECT_THAT(Message(R"({"x": [1, 2], "7": [1, 2, 3]})"), HasSubstr("item '7' has 3 codes, item 'x' has 2"));
  EXPECT_THAT(Message(R"({"x": [1, 2], "x": [1, 2]})"), HasSubstr("item 'x' comes twice"));
  EXPECT_THAT(Message(R"({"x": [1, 256]})"), HasSubstr("item 'x', level 1: code 256 is outside [0, 256)"));
  EXPECT_THAT(Message(R"({"x": [-1, 2]})"), HasSubstr("level 0: code -1 is outside"));
  EXPECT_THAT(Message(R"({"x": [1, 18446744073709551615]})"), HasSubstr("code 18446744073709551615 is outside"));
  EXPECT_THAT(Message(R"({"x": ["<a_1>", "<b_256>"]})"), HasSubstr("code <b_256> is outside"));
  EXPECT_THAT(Message(R"({"x": [1]})"), HasSubstr("has 1 codes, want 2 to 4"));
  EXPECT_THAT(Message(R"({"x": []})"), HasSubstr("has 0 codes"));
  EXPECT_THAT(Message(R"({"x": [1, 2, 3, 4, 5]})"), HasSubstr("more than 4"));
}

TEST_F(SidIndexTest, OtherFormsAreRefused) {
  EXPECT_THAT(Message(R"({"x": ["<b_1>", "<b_2>"]})"), HasSubstr("level 0 is <a_0> and up"));
  EXPECT_THAT(Message(R"({"x": ["<a_1", "<b_2>"]})"), HasSubstr("'<a_1'"));
  EXPECT_THAT(Message(R"({"x": ["<a_>", "<b_2>"]})"), HasSubstr("'<a_>'"));
  EXPECT_THAT(Message(R"({"x": "<a_1><b_2>"})"), HasSubstr("want a list of codes"));
  EXPECT_THAT(Message(R"({"x": 5})"), HasSubstr("want a list of codes"));
  EXPECT_THAT(Message(R"({"x": [1.5, 2]})"), HasSubstr("got 1.5 in it"));
  EXPECT_THAT(Message(R"({"x": [[1], 2]})"), HasSubstr("got a list in it"));
  EXPECT_THAT(Message(R"({"x": {"a": 1}})"), HasSubstr("got an object"));
  EXPECT_THAT(Message("[]"), HasSubstr("want a JSON object of items, got a list"));
  EXPECT_THAT(Message("{\"x\": [1,\n2"), HasSubstr(":2: not valid JSON"));
  EXPECT_EQ(ReadSidIndex(path_ + "x", {}, 256).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(SidIndexTest, TheIndicesBesideTheSourceAreRead) {
  for (const char* file : {"index_rqvae.json", "index_rqkmeans.json"}) {
    std::string path = absl::StrCat(SLUICE_SOURCE_DIR, "/../shared/data/beauty/", file);
    if (!PathExists(path)) path = absl::StrCat(SLUICE_SOURCE_DIR, "/../../shared/data/beauty/", file);
    if (!PathExists(path)) GTEST_SKIP() << "no ../shared/data/beauty/" << file << " beside the source";
    std::vector<std::string> names;
    for (int i = 0; i < 12101; ++i) names.push_back(absl::StrCat(i));
    const auto table = ReadSidIndex(path, names, 256);
    ASSERT_TRUE(table.ok()) << table.status();
    EXPECT_EQ(table->levels, 4);
    EXPECT_EQ(table->item_codes.size(), 12101 * 4);
  }
}

}  // namespace
}  // namespace sluice
