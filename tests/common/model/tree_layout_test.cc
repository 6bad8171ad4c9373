#include "common/model/tree_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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

}  // namespace
}  // namespace sluice
