#include "learner/objective/gate.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "common/random/random.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice::learner {
namespace {

using ::testing::HasSubstr;

// G = 10 with leaves 0..9, tau .3 and rho .5: a head of 3, a zone of 5. The
// target (leaf 100) is not in the list and scores best; two negatives score
// worst. Every test passes.
GateInput Admissible() {
  GateInput input;
  for (int i = 0; i < 10; ++i) {
    input.completion_leaves.push_back(i);
    input.completion_scores.push_back(1.0 - 0.01 * i);
    input.completion_log_probs.push_back(-1.0 - i);
  }
  input.target_leaf = 100;
  input.target_score = 2;
  input.target_log_prob = -20;
  input.negative_leaves = {200, 201};
  input.negative_scores = {-1, -2};
  return input;
}

GateOptions Options() {
  GateOptions options;
  options.tau = 0.3;
  options.rho = 0.5;
  options.negatives = 2;
  return options;
}

TEST(GateTest, OpensWhenThePolicyIsUnsureAndTheRankerSeparates) {
  const GateVerdict verdict = Decide(Admissible(), Options());
  EXPECT_TRUE(verdict.open);
  EXPECT_EQ(verdict.reason, GateReason::kOpen);
  EXPECT_EQ(verdict.diagnostics.head_size, 3);
  EXPECT_EQ(verdict.diagnostics.zone_size, 5);
  EXPECT_EQ(verdict.diagnostics.pool_size, 13);
  EXPECT_EQ(verdict.diagnostics.rank_policy, 11);  // absent: G + 1
  EXPECT_EQ(verdict.diagnostics.rank_ranker, 1);
}

TEST(GateTest, ClosesForDifficultyUpToTheLastPlaceOfTheHead) {
  for (int place = 1; place <= 10; ++place) {
    GateInput input = Admissible();
    input.completion_leaves[place - 1] = 100;
    const GateVerdict verdict = Decide(input, Options());
    EXPECT_EQ(verdict.diagnostics.rank_policy, place);
    EXPECT_EQ(verdict.open, place > 3) << place;
    EXPECT_EQ(verdict.reason, place > 3 ? GateReason::kOpen : GateReason::kDifficulty);
  }
}

TEST(GateTest, ListRankCountsDistinctCompletions) {
  GateInput input = Admissible();
  input.completion_leaves = {0, 0, 0, 0, 0, 1, 100, 2, 3, 4};
  const GateVerdict verdict = Decide(input, Options());
  EXPECT_EQ(verdict.diagnostics.rank_policy, 3);
  EXPECT_EQ(verdict.diagnostics.pool_size, 8);  // target, 0 to 4, two negatives
}

TEST(GateTest, TeacherForcedRankCountsCompletionsThatThePolicyLikesBetter) {
  GateOptions options = Options();
  options.difficulty = DifficultyMode::kTeacherForced;
  GateInput input = Admissible();
  input.target_log_prob = -3.5;  // -1, -2, -3 are above
  EXPECT_EQ(Decide(input, options).diagnostics.rank_policy, 4);
  EXPECT_TRUE(Decide(input, options).open);
  input.target_log_prob = -3;  // only two are strictly above
  EXPECT_EQ(Decide(input, options).diagnostics.rank_policy, 3);
  EXPECT_EQ(Decide(input, options).reason, GateReason::kDifficulty);
  input.completion_leaves[0] = 100;  // the target itself does not count against itself
  EXPECT_EQ(Decide(input, options).diagnostics.rank_policy, 2);
}

TEST(GateTest, ClosesWhenTheRankerPutsTheTargetOutsideItsHead) {
  GateInput input = Admissible();
  input.target_score = 0.975;  // behind three completions
  const GateVerdict verdict = Decide(input, Options());
  EXPECT_EQ(verdict.diagnostics.rank_ranker, 4);
  EXPECT_EQ(verdict.reason, GateReason::kDiscriminability);
  EXPECT_TRUE(verdict.diagnostics.suppressed);
}

TEST(GateTest, ClosesWhenOneNegativeIsAboveTheBottomZone) {
  GateInput input = Admissible();
  input.negative_scores = {-1, 0.955};  // ranks 13 and 7 of 13; the zone is the ranks from 9
  EXPECT_EQ(Decide(input, Options()).reason, GateReason::kDiscriminability);
  input.negative_scores = {-1, 0.925};  // behind the target and eight completions: rank 10
  EXPECT_TRUE(Decide(input, Options()).open);
}

TEST(GateTest, TiesCountAgainstAdmissionUnlessAveraged) {
  GateInput input = Admissible();
  input.target_score = 0.98;  // equal to the third completion: above it are two
  EXPECT_EQ(Decide(input, Options()).diagnostics.rank_ranker, 4);
  EXPECT_FALSE(Decide(input, Options()).open);
  GateOptions average = Options();
  average.ties = GateTies::kAverage;
  EXPECT_EQ(Decide(input, average).diagnostics.rank_ranker, 3.5);

  // All scores equal: the ranker separates nothing, and neither convention
  // admits.
  input.target_score = 1;
  std::fill(input.completion_scores.begin(), input.completion_scores.end(), 1.0);
  std::fill(input.negative_scores.begin(), input.negative_scores.end(), 1.0);
  EXPECT_FALSE(Decide(input, Options()).open);
  EXPECT_FALSE(Decide(input, Options()).diagnostics.suppressed);
  EXPECT_FALSE(Decide(input, average).open);
}

TEST(GateTest, ZoneByPoolIsLargerThanByGroup) {
  GateOptions options = Options();
  options.zone = GateZone::kPool;
  GateInput input = Admissible();
  EXPECT_EQ(Decide(input, options).diagnostics.zone_size, 7);  // ceil(.5 * 13)
  input.negative_scores = {-1, 0.935};                         // rank 9 of 13
  EXPECT_TRUE(Decide(input, options).open);
  input.negative_scores = {-1, 0.965};  // rank 6
  EXPECT_FALSE(Decide(input, options).open);
}

TEST(GateTest, DropsNegativesThatAreTheTargetACompletionOrRepeated) {
  GateInput input = Admissible();
  input.negative_leaves = {100, 4, 200, 200};
  input.negative_scores = {5, 5, -1, -1};
  const GateVerdict verdict = Decide(input, Options());
  EXPECT_EQ(verdict.diagnostics.negatives, 1);
  EXPECT_EQ(verdict.reason, GateReason::kNegatives);
  GateOptions one = Options();
  one.negatives = 1;
  EXPECT_TRUE(Decide(input, one).open);
}

TEST(GateTest, DifficultyIsNamedBeforeNegativesBeforeDiscriminability) {
  GateInput input = Admissible();
  input.completion_leaves[0] = 100;
  input.negative_leaves.clear();
  input.negative_scores.clear();
  input.target_score = -5;
  GateOptions options = Options();
  EXPECT_EQ(Decide(input, options).reason, GateReason::kDifficulty);
  options.use_difficulty = false;
  EXPECT_EQ(Decide(input, options).reason, GateReason::kNegatives);
  options.use_suppression = false;
  EXPECT_EQ(Decide(input, options).reason, GateReason::kDiscriminability);
  options.use_head = false;
  EXPECT_TRUE(Decide(input, options).open);
}

TEST(GateTest, TheVerdictDependsOnScoresOnlyThroughTheirOrder) {
  Random random(5);
  for (int trial = 0; trial < 200; ++trial) {
    GateInput input = Admissible();
    for (double& score : input.completion_scores) score = random.Normal();
    for (double& score : input.negative_scores) score = random.Normal();
    input.target_score = random.Normal();
    GateInput warped = input;
    const auto warp = [](double x) { return std::exp(0.3 * x) - 4; };
    for (double& score : warped.completion_scores) score = warp(score);
    for (double& score : warped.negative_scores) score = warp(score);
    warped.target_score = warp(input.target_score);
    EXPECT_EQ(Decide(input, Options()).reason, Decide(warped, Options()).reason);
  }
}

// Brute force from the definition: sort the pool and look places up, instead of
// counting.
TEST(GateTest, AgreesWithSortingThePool) {
  Random random(11);
  int open = 0;
  for (int trial = 0; trial < 2000; ++trial) {
    GateInput input;
    const int group_size = 4 + static_cast<int>(random.Below(13));
    GateOptions options;
    options.tau = 0.2 + 0.3 * random.Uniform();
    options.rho = 0.5 + 0.5 * random.Uniform();
    options.negatives = 2;
    std::set<double> used;  // scores without ties, so that sorting needs no convention
    const auto draw = [&] {
      double score = random.Normal();
      while (!used.insert(score).second) score = random.Normal();
      return score;
    };
    for (int i = 0; i < group_size; ++i) {
      input.completion_leaves.push_back(i);
      input.completion_scores.push_back(draw());
    }
    input.target_leaf = random.Uniform() < 0.5 ? static_cast<int32_t>(random.Below(group_size)) : 50;
    input.target_score = draw() + 1;
    input.negative_leaves = {60, 61};
    input.negative_scores = {draw() - 1, draw() - 1};

    std::vector<std::pair<double, int32_t>> pool = {{-input.target_score, input.target_leaf}};
    for (int i = 0; i < group_size; ++i) {
      if (i != input.target_leaf) pool.push_back({-input.completion_scores[i], i});
    }
    pool.push_back({-input.negative_scores[0], 60});
    pool.push_back({-input.negative_scores[1], 61});
    std::sort(pool.begin(), pool.end());
    const auto place = [&](int32_t leaf) {
      return 1 + std::distance(pool.begin(),
                               std::find_if(pool.begin(), pool.end(), [&](auto& p) { return p.second == leaf; }));
    };
    const int head = static_cast<int>(std::ceil(options.tau * group_size));
    const int zone = static_cast<int>(std::ceil(options.rho * group_size));
    const bool difficult = input.target_leaf >= head;  // places from 1, leaves from 0; 50 is absent
    const bool want = difficult && place(input.target_leaf) <= head &&
                      place(60) > static_cast<int>(pool.size()) - zone &&
                      place(61) > static_cast<int>(pool.size()) - zone;
    EXPECT_EQ(Decide(input, options).open, want) << trial;
    open += want;
  }
  EXPECT_GT(open, 100);  // both answers occur
  EXPECT_LT(open, 1900);
}

TEST(GateTest, SharesThatAreWholeNumbersAreNotRoundedUp) {
  GateInput input = Admissible();
  GateOptions options = Options();
  options.tau = 0.1 + 0.2;  // a little more than .3 in doubles
  EXPECT_EQ(Decide(input, options).diagnostics.head_size, 3);
}

// Completions scored 1 to 4, the target 5, so a quantile is easy to name.
GateInput Graded(double negative) {
  GateInput input;
  input.completion_leaves = {0, 1, 2, 3};
  input.completion_scores = {1, 2, 3, 4};
  input.target_leaf = 9;
  input.target_score = 5;
  input.negative_leaves = {20};
  input.negative_scores = {negative};
  return input;
}

TEST(GateTest, AQuantileZoneComparesNegativesWithTheCompletionsScores) {
  GateOptions options = Options();
  options.negatives = 1;
  options.zone = GateZone::kQuantile;
  options.rho = 0.5;  // the second smallest of four
  EXPECT_TRUE(Decide(Graded(2), options).open);
  EXPECT_EQ(Decide(Graded(2.5), options).reason, GateReason::kDiscriminability);
  options.rho = 1;  // at least the smallest
  EXPECT_TRUE(Decide(Graded(1), options).open);
  EXPECT_FALSE(Decide(Graded(1.5), options).open);
  options.rho = 0;
  EXPECT_TRUE(Decide(Graded(4), options).open);
  EXPECT_FALSE(Decide(Graded(4.5), options).open);
  // The target counts among the completions where it is one of them, with the target's score.
  GateInput found = Graded(4.5);
  found.target_leaf = 3;
  found.negative_leaves = {20};
  options.use_difficulty = false;
  EXPECT_TRUE(Decide(found, options).open);
}

TEST(GateTest, TheOtherWordingWantsNegativesOutsideOfTheZone) {
  GateOptions options = Options();
  options.negatives = 1;
  options.rho = 0.5;
  options.tau = 0.5;
  options.zone = GateZone::kGroup;
  EXPECT_TRUE(Decide(Graded(0), options).open);
  EXPECT_FALSE(Decide(Graded(3.5), options).open);
  options.zone = GateZone::kOutside;
  EXPECT_FALSE(Decide(Graded(0), options).open);
  EXPECT_TRUE(Decide(Graded(3.5), options).open);
}

TEST(GateTest, TheHeadTestMayLeaveTheNegativesOut) {
  GateOptions options = Options();
  options.negatives = 1;
  options.tau = 0.25;  // one place
  options.use_suppression = false;
  const GateInput input = Graded(6);  // a negative above the target
  EXPECT_EQ(Decide(input, options).reason, GateReason::kDiscriminability);
  options.head_pool = GateHeadPool::kGroup;
  EXPECT_TRUE(Decide(input, options).open);
}

TEST(ValidateGateTest, RefusesAHeadWithoutPlaces) {
  GateOptions options = Options();
  options.tau = 0;
  EXPECT_EQ(ValidateGate(options, 16).code(), absl::StatusCode::kInvalidArgument);
  options.use_difficulty = options.use_head = false;
  EXPECT_TRUE(ValidateGate(options, 16).ok());
}

TEST(ValidateGateTest, RefusesAZoneTooSmallForTheNegatives) {
  GateOptions options = Options();
  options.rho = 0.1;
  options.negatives = 4;
  const absl::Status status = ValidateGate(options, 16);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("at most 2 negatives"));
  options.negatives = 2;
  EXPECT_TRUE(ValidateGate(options, 16).ok());
  options.negatives = 0;
  EXPECT_FALSE(ValidateGate(options, 16).ok());
  options.use_suppression = false;
  EXPECT_TRUE(ValidateGate(options, 16).ok());
  options.tau = 1.5;
  EXPECT_FALSE(ValidateGate(options, 16).ok());
}

TEST(GateReasonTest, EveryReasonHasItsOwnName) {
  std::set<std::string> names;
  for (int i = 0; i < kNumGateReasons; ++i) names.insert(std::string(GateReasonName(static_cast<GateReason>(i))));
  EXPECT_EQ(names.size(), static_cast<size_t>(kNumGateReasons));
  EXPECT_EQ(names.count("unknown"), 0u);
}

}  // namespace
}  // namespace sluice::learner
