#include "learner/objective/cells.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "common/random/random.h"

namespace sluice::learner {
namespace {

GateDiagnostics Found(bool difficult, bool discriminable, double rank_policy, double rank_ranker) {
  GateDiagnostics found;
  found.difficult = difficult;
  found.in_head = discriminable;
  found.suppressed = true;
  found.rank_policy = rank_policy;
  found.rank_ranker = rank_ranker;
  return found;
}

TEST(CellSumsTest, CellsHoldSharesAndMeanCorrectionsOfBothRankers) {
  CellSums sums;
  EXPECT_TRUE(sums.Table().empty());
  sums.ranker.Add(Found(true, true, 17, 2));
  sums.ranker.Add(Found(true, true, 12, 3));
  sums.ranker.Add(Found(true, false, 9, 10));
  sums.ranker.Add(Found(false, false, 1, 5));
  sums.random.Add(Found(true, true, 17, 4));
  sums.random.Add(Found(true, false, 12, 16));
  sums.random.Add(Found(true, false, 9, 12));
  sums.random.Add(Found(false, true, 1, 2));
  const auto table = sums.Table();
  EXPECT_EQ(table.at("d1_c1").at("groups"), 2);
  EXPECT_DOUBLE_EQ(table.at("d1_c1").at("share"), 0.5);
  EXPECT_DOUBLE_EQ(table.at("d1_c1").at("rank_correction"), (15 + 9) / 2.0);
  EXPECT_DOUBLE_EQ(table.at("d1_c1").at("random_rank_correction"), 13);
  EXPECT_DOUBLE_EQ(table.at("d1_c0").at("random_share"), 0.5);
  EXPECT_DOUBLE_EQ(table.at("d1_c0").at("random_rank_correction"), (-4 - 3) / 2.0);
  EXPECT_EQ(table.at("d0_c1").count("rank_correction"), 0u);  // of no groups
  EXPECT_DOUBLE_EQ(table.at("all").at("rank_correction"), (15 + 9 - 1 - 4) / 4.0);
  EXPECT_DOUBLE_EQ(table.at("all").at("random_rank_correction"), (13 - 4 - 3 - 1) / 4.0);
}

TEST(RandomRankerTest, PutsTheTargetAnywhereInThePoolWithEqualChance) {
  // A group of 6 that lacks the target, and 2 negatives: a pool of 9 places, of which the head has ceil(.3 * 6) = 2.
  GateInput input;
  input.completion_leaves = {1, 2, 3, 4, 5, 6};
  input.completion_scores = {9, 8, 7, 6, 5, 4};
  input.target_leaf = 20;
  input.target_score = 100;  // the ranker itself is sure
  input.negative_leaves = {30, 31};
  input.negative_scores = {-1, -2};
  GateOptions options;
  options.negatives = 2;
  std::map<double, int> places;
  int in_head = 0;
  constexpr int kGroups = 9000;
  for (uint64_t group = 0; group < kGroups; ++group) {
    const GateDiagnostics found = RandomRankerDiagnostics(input, options, DeriveSeed(7, {group}));
    EXPECT_EQ(found.rank_policy, 7);  // G + 1: the policy is the same
    ++places[found.rank_ranker];
    in_head += found.in_head;
  }
  EXPECT_EQ(places.size(), 9u);
  // 1,000 each; five standard deviations are 149.
  for (const auto& [place, count] : places) EXPECT_NEAR(count, kGroups / 9, 150) << place;
  EXPECT_NEAR(in_head, kGroups * 2 / 9, 200);
}

TEST(RandomRankerTest, OneSemanticIdHasOneScore) {
  // The target is completion 3: were its scores two, its own completion could rank before it.
  GateInput input;
  input.completion_leaves = {1, 2, 3};
  input.completion_scores = {0, 0, 0};
  input.target_leaf = 3;
  GateOptions options;
  options.use_suppression = false;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const GateDiagnostics first = RandomRankerDiagnostics(input, options, seed);
    EXPECT_EQ(first.pool_size, 3);
    GateInput shuffled = input;
    std::swap(shuffled.completion_leaves[0], shuffled.completion_leaves[1]);
    EXPECT_EQ(RandomRankerDiagnostics(shuffled, options, seed).rank_ranker, first.rank_ranker);
  }
}

}  // namespace
}  // namespace sluice::learner
