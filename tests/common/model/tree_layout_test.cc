#include "common/model/tree_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <vector>

namespace sluice {
namespace {

using ::testing::ElementsAre;

TreeLimits Limits() {
  TreeLimits limits;
  limits.vocab_size = 20;
  limits.num_leaves = 5;
  limits.max_positions = 8;
  return limits;
}

// The example of tree_layout.h, with a second branch of one token on prompt 1.
TreeLayout Example() {
  const std::vector<PromptInput> prompts = {{1, 10, MergedItemEntry(4)}, {1, 12}};
  const std::vector<Branch> branches = {{0, 1, {13, 14, 15}}, {1, 1, {16}}};
  return MakeTreeLayout(prompts, branches, Limits()).value();
}

TEST(TreeLayoutTest, TrunksComeFirstThenBranchesWithoutTheirLastToken) {
  const TreeLayout layout = Example();
  EXPECT_EQ(layout.rows, 7);
  EXPECT_THAT(layout.trunk_first, ElementsAre(0, 3));
  EXPECT_THAT(layout.trunk_length, ElementsAre(3, 2));
  EXPECT_THAT(layout.entry, ElementsAre(1, 10, -5, 1, 12, 13, 14));
}

TEST(TreeLayoutTest, BranchPositionsFollowTheirAnchor) {
  EXPECT_THAT(Example().position, ElementsAre(0, 1, 2, 0, 1, 2, 3));
}

TEST(TreeLayoutTest, PredictionsAreReadFromTheAnchorAndThenTheBranch) {
  const TreeLayout layout = Example();
  EXPECT_THAT(layout.prediction_first, ElementsAre(0, 3));
  EXPECT_THAT(layout.prediction_rows, ElementsAre(1, 5, 6, 4));
}

TEST(TreeLayoutTest, PairsCountWhatRowsSee) {
  // Trunks 1 + 2 + 3 and 1 + 2; the branch's rows see 2 + 1 and 2 + 2.
  EXPECT_EQ(Example().visible_pairs, 9 + 7);
}

TEST(TreeLayoutTest, BranchesAreListedByPrompt) {
  const std::vector<PromptInput> prompts = {{1}, {1}, {1}};
  const std::vector<Branch> branches = {{2, 0, {3}}, {0, 0, {3}}, {2, 0, {4}}};
  const TreeLayout layout = MakeTreeLayout(prompts, branches, Limits()).value();
  EXPECT_THAT(layout.first_branch, ElementsAre(0, 1, 1, 3));
  EXPECT_THAT(layout.branch_of_prompt, ElementsAre(1, 0, 2));
}

TEST(TreeLayoutTest, TooManyRowsAreResourceExhausted) {
  TreeLimits limits = Limits();
  limits.max_rows = 6;
  const std::vector<PromptInput> prompts = {{1, 2, 3}, {1, 2, 3, 4}};
  EXPECT_EQ(MakeTreeLayout(prompts, {}, limits).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(FillersTest, RowCountsBecomeFewAndGrowByAThirtySecondAtMost) {
  std::set<int64_t> distinct;
  for (int64_t rows = 1; rows <= 4096; ++rows) {
    const int64_t rounded = RoundedRows(rows);
    EXPECT_GE(rounded, rows);
    EXPECT_LE((rounded - rows) * 32, rows);
    distinct.insert(rounded);
  }
  EXPECT_LE(distinct.size(), 64u + 7 * 32);  // 1 to 63, then 32 an octave
}

TEST(FillersTest, OneRowPromptsFillTheBatchUp) {
  const std::vector<PromptInput> prompts(21, PromptInput(6, 1));
  const std::vector<Branch> branches = {{0, 5, {3, 4, 5}}, {20, 5, {3, 4, 5}}};
  const std::vector<PromptInput> filled = WithFillers(prompts, branches);  // 130 rows become 132
  ASSERT_EQ(filled.size(), 23u);
  EXPECT_EQ(filled[20], prompts[20]);
  EXPECT_THAT(filled[21], ElementsAre(0));
  EXPECT_THAT(filled[22], ElementsAre(0));
  EXPECT_EQ(MakeTreeLayout(filled, branches, Limits()).value().rows, 132);
}

TEST(FillersTest, ABranchOnNoPromptIsStillRefused) {
  const std::vector<PromptInput> prompts = {PromptInput(65, 1)};
  const std::vector<Branch> branches = {{1, 0, {3}}};
  EXPECT_EQ(WithFillers(prompts, branches).size(), 1u);
}

}  // namespace
}  // namespace sluice
