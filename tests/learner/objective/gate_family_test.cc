// The kinds of gates other than AdaGRPO's, whose tests are in gate_test.cc.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <set>

#include "common/random/random.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "learner/objective/gate.h"

namespace sluice::learner {
namespace {

using ::testing::HasSubstr;

// A group of 4 (leaves 0 to 3) without the target (leaf 9), two negatives, three items of history. By hand:
//   history   5, 4, 0 above 1, 2:  2 + 2 + 0 of 6
//   own_cross 6, 3, 1.5, 0 above 1, 2:  2 + 2 + 1 + 0 of 8
//   place     2.5 above 6, 3, 1.5, 0:  2 of 4
GateInput Input() {
  GateInput input;
  input.completion_leaves = {0, 1, 2, 3};
  input.completion_scores = {6, 3, 1.5, 0};
  input.target_leaf = 9;
  input.target_score = 2.5;
  input.negative_leaves = {20, 21};
  input.negative_scores = {1, 2};
  input.history_leaves = {30, 31, 32};
  input.history_scores = {5, 4, 0};
  input.region = 7;
  return input;
}

GateOptions Options(GateKind kind) {
  GateOptions options;
  options.kind = kind;
  options.tau = 0.25;
  options.negatives = 2;
  options.pool_groups = 2;
  return options;
}

GateState Regions() {
  GateState state;
  state.Observe({{7, 1, 0.75}, {7, 1, 0.75}, {8, 0, 0.25}, {8, 0, 0.25}}, 1);  // .875 and .125; the middle is .5
  return state;
}

TEST(GateFamilyTest, SharesOfPairsAreWhatTheHandCounts) {
  const GateDiagnostics found = Decide(Input(), Options(GateKind::kHistory)).diagnostics;
  EXPECT_DOUBLE_EQ(*found.history, 4.0 / 6);
  EXPECT_DOUBLE_EQ(*found.own_cross, 5.0 / 8);
  EXPECT_DOUBLE_EQ(*found.target_place, 2.0 / 4);
}

TEST(GateFamilyTest, HistoryAndOwnCrossOpenAboveTheThreshold) {
  GateOptions history = Options(GateKind::kHistory);
  EXPECT_EQ(Decide(Input(), history).reason, GateReason::kReliability);  // .67, and .9 is asked
  EXPECT_DOUBLE_EQ(*Decide(Input(), history).reliability, 4.0 / 6);
  history.threshold = 0.6;
  EXPECT_TRUE(Decide(Input(), history).open);
  history.threshold = 4.0 / 6;
  EXPECT_FALSE(Decide(Input(), history).open);  // above, not at
  GateOptions own = Options(GateKind::kOwnCross);
  own.threshold = 0.62;
  EXPECT_TRUE(Decide(Input(), own).open);
  own.threshold = 0.63;
  EXPECT_EQ(Decide(Input(), own).reason, GateReason::kReliability);
}

TEST(GateFamilyTest, OwnCrossKnowsNoLabel) {
  GateInput input = Input();
  const std::optional<double> before = Decide(input, Options(GateKind::kOwnCross)).reliability;
  input.target_leaf = 2;
  input.target_score = -100;
  EXPECT_EQ(Decide(input, Options(GateKind::kOwnCross)).reliability, before);
}

TEST(GateFamilyTest, ANegativeThatTheHistoryHoldsIsNoStranger) {
  GateInput input = Input();
  input.negative_leaves = {20, 31};  // the second is an item of the history
  EXPECT_DOUBLE_EQ(*Decide(input, Options(GateKind::kHistory)).diagnostics.history, 2.0 / 3);  // 5, 4, 0 above 1
  input.negative_leaves = {30, 31};
  EXPECT_EQ(Decide(input, Options(GateKind::kHistory)).reason, GateReason::kNegatives);
}

TEST(GateFamilyTest, MissingEvidenceClosesWithItsOwnReasonAndNoEstimate) {
  GateInput input = Input();
  input.history_leaves.clear();
  input.history_scores.clear();
  for (const GateKind kind : {GateKind::kHistory, GateKind::kCombined}) {
    EXPECT_EQ(Decide(input, Options(kind)).reason, GateReason::kHistory);
    EXPECT_EQ(Decide(input, Options(kind)).reliability, std::nullopt);
  }
  EXPECT_EQ(Decide(input, Options(GateKind::kOwnCross)).reason, GateReason::kReliability);
  input = Input();
  input.negative_leaves.clear();
  input.negative_scores.clear();
  for (const GateKind kind : {GateKind::kHistory, GateKind::kOwnCross, GateKind::kCombined, GateKind::kPooled}) {
    EXPECT_EQ(Decide(input, Options(kind)).reason, GateReason::kNegatives);
    EXPECT_EQ(Decide(input, Options(kind)).reliability, std::nullopt);
  }
}

TEST(GateFamilyTest, DifficultyIsAskedFirstByEveryKind) {
  GateInput input = Input();
  input.target_leaf = 0;  // first in the list: in the head of one
  input.negative_leaves.clear();
  input.negative_scores.clear();
  input.reliable = true;
  for (const GateKind kind : {GateKind::kAdaGrpo, GateKind::kHistory, GateKind::kOwnCross, GateKind::kPooled,
                              GateKind::kCombined, GateKind::kOracle}) {
    EXPECT_EQ(Decide(input, Options(kind), Regions()).reason, GateReason::kDifficulty);
    GateOptions options = Options(kind);
    options.use_difficulty = false;
    EXPECT_NE(Decide(input, options, Regions()).reason, GateReason::kDifficulty);
  }
}

TEST(GateFamilyTest, TheOracleOpensWhereTheTruthSaysSo) {
  GateInput input = Input();
  EXPECT_EQ(Decide(input, Options(GateKind::kOracle)).reason, GateReason::kTruth);
  input.reliable = true;
  EXPECT_TRUE(Decide(input, Options(GateKind::kOracle)).open);
  EXPECT_EQ(Decide(input, Options(GateKind::kOracle)).reliability, 1);
  input.reliable = false;
  EXPECT_EQ(Decide(input, Options(GateKind::kOracle)).reason, GateReason::kReliability);
  EXPECT_EQ(Decide(input, Options(GateKind::kOracle)).reliability, 0);
}

TEST(GateFamilyTest, PooledDecidesByTheRegionOnceItHasGroupsAndByTheSampleUntilThen) {
  GateOptions options = Options(GateKind::kPooled);
  GateInput input = Input();
  // Behind 6 and 3 the target is outside a head of one: AdaGRPO's test fails.
  EXPECT_EQ(Decide(input, options).reason, GateReason::kDiscriminability);
  EXPECT_EQ(Decide(input, options).reliability, std::nullopt);
  EXPECT_TRUE(Decide(input, options, Regions()).open);  // region 7 is above the middle
  EXPECT_DOUBLE_EQ(*Decide(input, options, Regions()).reliability, 0.875);
  input.region = 8;
  EXPECT_EQ(Decide(input, options, Regions()).reason, GateReason::kReliability);
  input.region = 9;  // never seen
  EXPECT_EQ(Decide(input, options, Regions()).reason, GateReason::kDiscriminability);
  input.region = 8;
  options.threshold = 0.1;
  EXPECT_TRUE(Decide(input, options, Regions()).open);
  options.pool_groups = 3;
  EXPECT_EQ(Decide(input, options, Regions()).reason, GateReason::kDiscriminability);
}

TEST(GateFamilyTest, CombinedWeighsTheSampleAndTheStandingOfItsRegion) {
  GateOptions options = Options(GateKind::kCombined);
  GateInput input = Input();
  input.history_scores = {5, 4, 3};                              // all above both negatives: 1
  EXPECT_DOUBLE_EQ(*Decide(input, options).reliability, 0.875);  // no standing: .5
  EXPECT_TRUE(Decide(input, options).open);                      // above .8
  EXPECT_DOUBLE_EQ(*Decide(input, options, Regions()).reliability, 1);
  input.region = 8;
  EXPECT_DOUBLE_EQ(*Decide(input, options, Regions()).reliability, 0.75);
  EXPECT_EQ(Decide(input, options, Regions()).reason, GateReason::kReliability);
  options.pool_weight = 0;
  EXPECT_DOUBLE_EQ(*Decide(input, options, Regions()).reliability, 1);
  options.pool_weight = 1;
  EXPECT_DOUBLE_EQ(*Decide(input, options, Regions()).reliability, 0);
  options.pool_weight = 0.25;
  options.single_test = GateSingleTest::kOwnCross;
  EXPECT_DOUBLE_EQ(*Decide(input, options, Regions()).reliability, 0.75 * 5 / 8);
}

// Without standing the combined gate is its single-sample gate, at the defaults of both.
TEST(GateFamilyTest, CombinedWithoutRegionsIsTheHistoryGate) {
  Random random(7);
  int open = 0;
  for (int trial = 0; trial < 500; ++trial) {
    GateInput input = Input();
    for (double& score : input.history_scores) score = random.Normal() + 4;
    for (double& score : input.negative_scores) score = random.Normal() + 2;
    const bool combined = Decide(input, Options(GateKind::kCombined)).open;
    EXPECT_EQ(combined, Decide(input, Options(GateKind::kHistory)).open);
    open += combined;
  }
  EXPECT_GT(open, 50);
  EXPECT_LT(open, 450);
}

TEST(GateFamilyTest, EqualScoresTellNothing) {
  GateInput input = Input();
  std::fill(input.completion_scores.begin(), input.completion_scores.end(), 1.0);
  std::fill(input.negative_scores.begin(), input.negative_scores.end(), 1.0);
  std::fill(input.history_scores.begin(), input.history_scores.end(), 1.0);
  input.target_score = 1;
  for (const GateKind kind : {GateKind::kHistory, GateKind::kOwnCross}) {
    GateOptions options = Options(kind);
    EXPECT_EQ(Decide(input, options).reliability, 0);
    options.ties = GateTies::kAverage;
    EXPECT_EQ(Decide(input, options).reliability, 0.5);
    EXPECT_FALSE(Decide(input, options).open);
  }
}

TEST(GateFamilyTest, RepeatedCompletionsAndNegativesCountOnce) {
  GateInput input = Input();
  const GateDiagnostics once = Decide(input, Options(GateKind::kOwnCross)).diagnostics;
  input.completion_leaves = {0, 1, 1, 2, 3, 0};
  input.completion_scores = {6, 3, 3, 1.5, 0, 6};
  input.negative_leaves = {20, 21, 21, 3, 9};  // again, a completion, the target
  input.negative_scores = {1, 2, 2, 100, 100};
  const GateDiagnostics found = Decide(input, Options(GateKind::kOwnCross)).diagnostics;
  EXPECT_EQ(found.own_cross, once.own_cross);
  EXPECT_EQ(found.history, once.history);
  EXPECT_EQ(found.target_place, once.target_place);
}

// Brute force over random groups with ties, in another way than the code: by average ranks (Mann-Whitney). Permuting
// completions, negatives and history changes nothing.
TEST(GateFamilyTest, AgreesWithRankSumsAndForgetsTheOrder) {
  Random random(11);
  const auto by_ranks = [](const std::vector<double>& above, const std::vector<double>& below) {
    std::vector<double> all = above;
    all.insert(all.end(), below.begin(), below.end());
    std::sort(all.begin(), all.end());
    double sum = 0;
    for (const double value : above) {
      const auto [first, last] = std::equal_range(all.begin(), all.end(), value);
      sum += (static_cast<double>(first - all.begin()) + 1 + static_cast<double>(last - all.begin())) / 2;
    }
    const double n = static_cast<double>(above.size());
    return (sum - n * (n + 1) / 2) / (n * static_cast<double>(below.size()));
  };
  for (int trial = 0; trial < 500; ++trial) {
    GateInput input;
    input.target_leaf = 1000;
    for (int i = 0; i < 8; ++i) input.completion_leaves.push_back(i);
    for (int i = 0; i < 5; ++i) input.negative_leaves.push_back(100 + i);
    for (int i = 0; i < 6; ++i) input.history_leaves.push_back(200 + i);
    const auto draw = [&](size_t count, std::vector<double>* scores) {
      for (size_t i = 0; i < count; ++i) scores->push_back(static_cast<double>(random.Below(6)));
    };
    draw(8, &input.completion_scores);
    draw(5, &input.negative_scores);
    draw(6, &input.history_scores);
    input.target_score = static_cast<double>(random.Below(6));
    GateOptions options = Options(GateKind::kHistory);
    options.ties = GateTies::kAverage;
    const GateDiagnostics found = Decide(input, options).diagnostics;
    EXPECT_NEAR(*found.history, by_ranks(input.history_scores, input.negative_scores), 1e-12);
    EXPECT_NEAR(*found.own_cross, by_ranks(input.completion_scores, input.negative_scores), 1e-12);
    EXPECT_NEAR(*found.target_place, by_ranks({input.target_score}, input.completion_scores), 1e-12);

    std::reverse(input.completion_leaves.begin(), input.completion_leaves.end());
    std::reverse(input.completion_scores.begin(), input.completion_scores.end());
    std::rotate(input.negative_leaves.begin(), input.negative_leaves.begin() + 2, input.negative_leaves.end());
    std::rotate(input.negative_scores.begin(), input.negative_scores.begin() + 2, input.negative_scores.end());
    std::rotate(input.history_leaves.begin(), input.history_leaves.begin() + 3, input.history_leaves.end());
    std::rotate(input.history_scores.begin(), input.history_scores.begin() + 3, input.history_scores.end());
    const GateDiagnostics permuted = Decide(input, options).diagnostics;
    EXPECT_EQ(permuted.history, found.history);
    EXPECT_EQ(permuted.own_cross, found.own_cross);
    EXPECT_EQ(permuted.target_place, found.target_place);
  }
}

TEST(GateFamilyTest, AnObservationNeedsScoresANegativeAndAnotherCompletion) {
  const GateOptions options = Options(GateKind::kPooled);
  const auto observe = [&](const GateInput& input) {
    return ObservationOf(input, Decide(input, options).diagnostics, options);
  };
  EXPECT_EQ(observe(Input()).region, 7);
  EXPECT_EQ(observe(Input()).single, 0);
  EXPECT_EQ(observe(Input()).target_place, 0.5);
  GateInput input = Input();
  input.target_score = 7;
  input.negative_scores = {-1, -2};
  EXPECT_EQ(observe(input).single, 1);
  EXPECT_EQ(observe(input).target_place, 1);
  input.has_scores = false;
  EXPECT_EQ(observe(input).region, kNoRegion);
  input = Input();
  input.negative_leaves.pop_back();
  input.negative_scores.pop_back();
  EXPECT_EQ(observe(input).region, kNoRegion);
  input = Input();
  input.completion_leaves = {9};
  input.completion_scores = {1};
  EXPECT_EQ(observe(input).region, kNoRegion);
}

// A market by hand: the ranker knows the taste of users of region 7 and follows popularity for those of region 8. The
// history test tells them apart nearly always, AdaGRPO's single test less often, the regions' means after a few steps.
TEST(GateFamilyTest, FindsTheUsersThatTheRankerKnows) {
  Random random(23);
  GateState state;
  std::map<GateKind, std::array<int, 2>> open;  // by kind: of unreliable, of reliable
  std::array<int, 2> users{};
  for (int step = 0; step < 60; ++step) {
    std::vector<GateObservation> observations;
    for (int i = 0; i < 32; ++i) {
      const bool reliable = random.Uniform() < 0.5;
      GateInput input;
      input.region = reliable ? 7 : 8;
      input.target_leaf = 1000;
      const auto score = [&](double taste) { return reliable ? taste + 0.3 * random.Normal() : random.Normal(); };
      for (int k = 0; k < 16; ++k) {
        input.completion_leaves.push_back(k);
        input.completion_scores.push_back(score(2 + random.Normal()));
      }
      for (int k = 0; k < 4; ++k) {
        input.negative_leaves.push_back(100 + k);
        input.negative_scores.push_back(score(-1 + random.Normal()));
      }
      for (int k = 0; k < 10; ++k) {
        input.history_leaves.push_back(200 + k);
        input.history_scores.push_back(score(3 + random.Normal()));
      }
      input.target_score = score(3 + random.Normal());
      ++users[reliable];
      for (const GateKind kind : {GateKind::kAdaGrpo, GateKind::kHistory, GateKind::kPooled, GateKind::kCombined}) {
        GateOptions options;
        options.kind = kind;
        const GateVerdict verdict = Decide(input, options, state);
        if (step >= 20) open[kind][reliable] += verdict.open;
        if (kind == GateKind::kPooled) {
          observations.push_back(ObservationOf(input, verdict.diagnostics, options));
        }
      }
    }
    state.Observe(observations, 0.99);
  }
  const auto rate = [&](GateKind kind, bool reliable) { return open[kind][reliable] / (users[reliable] * 40.0 / 60); };
  EXPECT_GT(rate(GateKind::kHistory, true), 0.8);
  EXPECT_LT(rate(GateKind::kHistory, false), 0.05);
  EXPECT_GT(rate(GateKind::kPooled, true), 0.95);
  EXPECT_LT(rate(GateKind::kPooled, false), 0.05);
  EXPECT_GT(rate(GateKind::kCombined, true), 0.9);
  EXPECT_LT(rate(GateKind::kCombined, false), 0.01);
  EXPECT_LT(rate(GateKind::kAdaGrpo, true), rate(GateKind::kHistory, true));
}

TEST(GateFamilyTest, RefusesOptionsThatCannotOpen) {
  GateOptions options = Options(GateKind::kHistory);
  EXPECT_TRUE(ValidateGate(options, 4).ok());
  options.rho = 0;  // asked by nobody
  EXPECT_TRUE(ValidateGate(options, 4).ok());
  options.kind = GateKind::kPooled;
  EXPECT_THAT(ValidateGate(options, 4).message(), HasSubstr("bottom zone of 0 places"));
  options.kind = GateKind::kOwnCross;
  options.negatives = 0;
  EXPECT_THAT(ValidateGate(options, 4).message(), HasSubstr("compares with other samples' rollouts"));
  options.kind = GateKind::kOracle;
  EXPECT_TRUE(ValidateGate(options, 4).ok());
  options.kind = GateKind::kHistory;
  options.negatives = 2;
  options.threshold = 1;
  EXPECT_THAT(ValidateGate(options, 4).message(), HasSubstr("no share is above 1"));
}

}  // namespace
}  // namespace sluice::learner
