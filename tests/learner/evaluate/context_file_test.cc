#include "learner/evaluate/context_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "tests/learner/evaluate/some_outcomes.h"

namespace sluice::learner {
namespace {

using ::testing::HasSubstr;

TEST(ContextFileTest, WhatIsWrittenIsReadBack) {
  const ContextRow row = {.step = 3,
                          .user = 4,
                          .position = 9,
                          .difficult = true,
                          .discriminable = false,
                          .rank_policy = 17,
                          .rank_ranker = 2.5,
                          .random_discriminable = true,
                          .random_rank_ranker = 11};
  EXPECT_EQ(ContextLine(row), "3,4,9,1,0,17,2.5,1,11\n");
  const std::string text = ContextsHeader() + ContextLine(row) + ContextLine(row);
  const auto rows = ContextsFromText(text);
  ASSERT_TRUE(rows.ok()) << rows.status();
  ASSERT_EQ(rows->size(), 2u);
  EXPECT_EQ(ContextLine((*rows)[1]), ContextLine(row));
  EXPECT_EQ(ContextsFromText(text + "4,5,")->size(), 2u) << "a torn last line is left out";
}

TEST(ContextFileTest, WhatIsForeignIsRefusedWithItsLine) {
  const auto refused = [](const std::string& text, const char* why) {
    const absl::Status status = ContextsFromText(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(why));
  };
  refused("", "line 1");
  refused("user\n", "line 1");
  refused(ContextsHeader() + "1,2,3\n", "line 2");
  refused(ContextsHeader() + "3,4,9,2,0,17,2.5,1,11\n", "line 2");
  refused(ContextsHeader() + "3,4,9,1,0,nan,2.5,1,11\n", "line 2");
  refused(ContextsHeader() + "3,4,9,1,0,0,2.5,1,11\n", "line 2");
}

// Users 0 to 39: 10 in each cell in turn; a random ranker discriminates the first half of D1.
std::vector<ContextRow> Contexts(const OutcomeTable& table) {
  std::vector<ContextRow> contexts;
  for (size_t i = 0; i < 40; ++i) {
    ContextRow row;
    row.user = table.rows[i].outcome.user;
    row.position = table.rows[i].outcome.position;
    row.difficult = i >= 20;
    row.discriminable = i / 10 % 2 == 1;
    row.random_discriminable = i < 30;
    row.rank_policy = row.rank_ranker = row.random_rank_ranker = 1;
    contexts.push_back(row);
  }
  return contexts;
}

TEST(CompareCellsTest, EachCellIsComparedOnItsOwnUsers) {
  OutcomeTable before = SomeOutcomes(50, 2), after;  // users 40 to 49 have no context
  for (OutcomeRow& row : before.rows) row.outcome.item_rank = 0;
  after = before;
  for (size_t i = 30; i < 36; ++i) after.rows[i].outcome.item_rank = 1;  // 6 of the 10 in D1 C1
  after.rows[45].outcome.item_rank = 1;
  CompareOptions options;
  options.metrics = {"hr@10"};
  options.bootstrap.resamples = 100;
  const auto cells = CompareCells({{"start", {before}}, {"trained", {after}}}, Contexts(before), options);
  ASSERT_TRUE(cells.ok()) << cells.status();
  std::map<std::string, double> difference;
  for (const auto& [name, comparison] : *cells) {
    EXPECT_EQ(comparison.users, 10) << name;
    difference[name] = comparison.differences.at(0).difference.mean;
  }
  EXPECT_EQ(difference.size(), 6u);
  EXPECT_EQ(difference["D0 C0"], 0);
  EXPECT_EQ(difference["D1 C0"], 0);
  EXPECT_NEAR(difference["D1 C1"], 0.6, 1e-12);
  EXPECT_NEAR(difference["D1 C0 random"], 0.6, 1e-12);
  EXPECT_EQ(difference["D1 C1 random"], 0);
}

TEST(CompareCellsTest, ContextsOfOtherUsersAreRefused) {
  const OutcomeTable table = SomeOutcomes(10, 2);
  ContextRow other;
  other.user = 99;
  const absl::Status status = CompareCells({{"a", {table}}, {"b", {table}}}, {other}, {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no evaluated user has a context"));
}

}  // namespace
}  // namespace sluice::learner
