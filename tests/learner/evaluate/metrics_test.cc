#include "learner/evaluate/metrics.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/random/random.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice::learner {
namespace {

using ::testing::Contains;
using ::testing::Key;
using ::testing::Not;

PromptOutcome Ranked(int32_t item_rank, int32_t sid_rank) {
  PromptOutcome outcome;
  outcome.item_rank = item_rank;
  outcome.sid_rank = sid_rank;
  return outcome;
}

TEST(RankingMetricsTest, MatchesTheDefinitionOnThreePrompts) {
  RankingMetrics metrics(/*num_leaves=*/4, /*depth=*/50);
  metrics.Add(Ranked(1, 1));
  metrics.Add(Ranked(7, 3));
  metrics.Add(Ranked(0, 0));  // missed
  // Item level: within 1: one of three; within 5: one; within 10: two.
  EXPECT_DOUBLE_EQ(*metrics.HitRate(HitLevel::kItem, 1), 1.0 / 3);
  EXPECT_DOUBLE_EQ(*metrics.HitRate(HitLevel::kItem, 5), 1.0 / 3);
  EXPECT_DOUBLE_EQ(*metrics.HitRate(HitLevel::kItem, 10), 2.0 / 3);
  EXPECT_DOUBLE_EQ(*metrics.HitRate(HitLevel::kSid, 5), 2.0 / 3);
  EXPECT_DOUBLE_EQ(*metrics.Ndcg(HitLevel::kItem, 10),
                   (1 + 1.0 / 3) / 3);  // log2(8) = 3
  EXPECT_DOUBLE_EQ(*metrics.Ndcg(HitLevel::kSid, 5),
                   (1 + 0.5) / 3);  // log2(4) = 2
  EXPECT_DOUBLE_EQ(*metrics.ReciprocalRank(HitLevel::kItem), (1 + 1.0 / 7) / 3);
}

TEST(RankingMetricsTest, MatchesDiscountedGainOfAnExplicitRelevanceList) {
  // Oracle: NDCG from a list of 0/1 relevances, position by position, and the
  // ideal list that starts with the 1.
  Random random(5);
  RankingMetrics metrics(1, 50);
  std::vector<double> want_ndcg(kCutoffs.size(), 0.0), want_hits(kCutoffs.size(), 0.0);
  const int prompts = 200;
  for (int n = 0; n < prompts; ++n) {
    std::vector<int> relevance(60, 0);
    relevance[random.Below(60)] = 1;
    int32_t rank = 0;
    for (int i = 0; i < 50; ++i) {
      if (relevance[i] == 1) rank = i + 1;
    }
    metrics.Add(Ranked(rank, 0));
    for (size_t c = 0; c < kCutoffs.size(); ++c) {
      double gain = 0, hits = 0;
      for (int i = 0; i < kCutoffs[c]; ++i) {
        gain += relevance[i] * std::log(2.0) / std::log(i + 2.0);
        hits += relevance[i];
      }
      want_ndcg[c] += gain;  // the ideal gain is 1
      want_hits[c] += hits;
    }
  }
  for (size_t c = 0; c < kCutoffs.size(); ++c) {
    EXPECT_NEAR(*metrics.Ndcg(HitLevel::kItem, kCutoffs[c]), want_ndcg[c] / prompts, 1e-12);
    EXPECT_NEAR(*metrics.HitRate(HitLevel::kItem, kCutoffs[c]), want_hits[c] / prompts, 1e-12);
  }
}

TEST(RankingMetricsTest, SumsOfTwoRanksAddUpToOneRank) {
  RankingMetrics left(3, 50), right(3, 50), whole(3, 50);
  Random random(9);
  for (int n = 0; n < 40; ++n) {
    PromptOutcome outcome = Ranked(static_cast<int32_t>(random.Below(60)), static_cast<int32_t>(random.Below(60)));
    outcome.top_leaves = {static_cast<int32_t>(random.Below(2))};
    outcome.unconstrained = 10;
    outcome.invalid = static_cast<int32_t>(random.Below(3));
    (n % 3 == 0 ? left : right).Add(outcome);
    whole.Add(outcome);
  }
  std::vector<double> sums = left.ToSums();
  const std::vector<double> other = right.ToSums();
  ASSERT_EQ(sums.size(), other.size());
  for (size_t i = 0; i < sums.size(); ++i) sums[i] += other[i];
  RankingMetrics total(3, 50);
  ASSERT_TRUE(total.SetSums(sums).ok());
  const auto want = whole.ToMap(), got = total.ToMap();
  ASSERT_EQ(want.size(), got.size());
  for (const auto& [name, value] : want) EXPECT_NEAR(got.at(name), value, 1e-12) << name;
  EXPECT_DOUBLE_EQ(got.at("coverage"), 2.0 / 3);
}

TEST(RankingMetricsTest, SumsOfAnotherCatalogAreRefused) {
  RankingMetrics three(3, 50), four(4, 50);
  EXPECT_EQ(three.SetSums(four.ToSums()).code(), absl::StatusCode::kInvalidArgument);
}

TEST(RankingMetricsTest, CutoffsBeyondTheListAreAbsentNotLow) {
  RankingMetrics metrics(1, /*depth=*/20);
  metrics.Add(Ranked(3, 3));
  EXPECT_TRUE(metrics.HitRate(HitLevel::kItem, 20).has_value());
  EXPECT_FALSE(metrics.HitRate(HitLevel::kItem, 50).has_value());
  EXPECT_FALSE(metrics.HitRate(HitLevel::kItem, 3).has_value());  // not a cutoff that is summed
  EXPECT_THAT(metrics.ToMap(), Not(Contains(Key("hr@50"))));
}

TEST(RankingMetricsTest, NothingMeasuredGivesNoNumber) {
  RankingMetrics metrics(2, 50);
  EXPECT_FALSE(metrics.HitRate(HitLevel::kItem, 10).has_value());
  EXPECT_FALSE(metrics.Hallucination().has_value());
  EXPECT_FALSE(metrics.Coverage().has_value());
  metrics.Add(Ranked(1, 1));  // no unconstrained beams with it
  EXPECT_FALSE(metrics.Hallucination().has_value());
}

TEST(RankingMetricsTest, HallucinationIsTheShareOfInvalidBeams) {
  RankingMetrics metrics(2, 50);
  PromptOutcome outcome = Ranked(0, 0);
  outcome.unconstrained = 10;
  outcome.invalid = 1;
  metrics.Add(outcome);
  outcome.unconstrained = 6;
  outcome.invalid = 3;
  metrics.Add(outcome);
  EXPECT_DOUBLE_EQ(*metrics.Hallucination(), 4.0 / 16);
}

TEST(PairedBootstrapTest, IntervalOfConstantDifferenceIsThatDifference) {
  const std::vector<double> a(50, 0.75), b(50, 0.5);
  const auto interval = PairedBootstrap(a, b, 200, 0.95, 1);
  ASSERT_TRUE(interval.ok());
  EXPECT_DOUBLE_EQ(interval->mean, 0.25);
  EXPECT_DOUBLE_EQ(interval->low, 0.25);
  EXPECT_DOUBLE_EQ(interval->high, 0.25);
}

TEST(PairedBootstrapTest, WidthMatchesTheNormalApproximation) {
  // 2,000 independent differences of mean 0.1 and standard deviation 1: the 95
  // % interval has a half-width of 1.96 / sqrt(2000) = 0.0438.
  Random random(3);
  std::vector<double> a, b;
  double mean = 0, squares = 0;
  for (int i = 0; i < 2000; ++i) {
    b.push_back(random.Normal());
    a.push_back(b.back() + 0.1 + random.Normal());
    mean += a.back() - b.back();
    squares += (a.back() - b.back()) * (a.back() - b.back());
  }
  mean /= 2000;
  const double half = 1.96 * std::sqrt((squares / 2000 - mean * mean) / 2000);
  const auto interval = PairedBootstrap(a, b, 2000, 0.95, 7);
  ASSERT_TRUE(interval.ok());
  EXPECT_NEAR(interval->mean, mean, 1e-12);
  EXPECT_NEAR(interval->high - interval->mean, half, 0.12 * half);
  EXPECT_NEAR(interval->mean - interval->low, half, 0.12 * half);
}

TEST(PairedBootstrapTest, RepeatsForASeedAndRefusesUnpairedInput) {
  const std::vector<double> a = {1, 0, 1, 1, 0, 0, 1}, b = {0, 0, 1, 0, 0, 1, 1};
  const auto first = PairedBootstrap(a, b, 500, 0.9, 4), second = PairedBootstrap(a, b, 500, 0.9, 4);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(first->low, second->low);
  EXPECT_EQ(first->high, second->high);
  EXPECT_EQ(PairedBootstrap(a, absl::MakeSpan(b).subspan(1), 500, 0.9, 4).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(PairedBootstrap(a, b, 0, 0.9, 4).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(PairedBootstrap(a, b, 10, 1, 4).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(HitsAtTest, GivesOneValueAPromptAtTheAskedLevel) {
  const std::vector<PromptOutcome> outcomes = {Ranked(1, 1), Ranked(11, 10), Ranked(0, 0)};
  EXPECT_THAT(HitsAt(outcomes, HitLevel::kItem, 10), testing::ElementsAre(1, 0, 0));
  EXPECT_THAT(HitsAt(outcomes, HitLevel::kSid, 10), testing::ElementsAre(1, 1, 0));
}

}  // namespace
}  // namespace sluice::learner
