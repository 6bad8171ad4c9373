#include "learner/evaluate/metrics.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <set>
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
  RankingMetrics metrics({.num_leaves = 4}, /*depth=*/50);
  metrics.Add(Ranked(1, 1));
  metrics.Add(Ranked(7, 3));
  metrics.Add(Ranked(0, 0));  // missed
  // Item level: within 1: one of three; within 5: one; within 10: two.
  EXPECT_DOUBLE_EQ(*metrics.HitRate(HitLevel::kItem, 1), 1.0 / 3);
  EXPECT_DOUBLE_EQ(*metrics.HitRate(HitLevel::kItem, 5), 1.0 / 3);
  EXPECT_DOUBLE_EQ(*metrics.HitRate(HitLevel::kItem, 10), 2.0 / 3);
  EXPECT_DOUBLE_EQ(*metrics.HitRate(HitLevel::kSid, 3), 2.0 / 3);
  EXPECT_DOUBLE_EQ(*metrics.HitRate(HitLevel::kSid, 5), 2.0 / 3);
  EXPECT_DOUBLE_EQ(*metrics.Ndcg(HitLevel::kItem, 10),
                   (1 + 1.0 / 3) / 3);  // log2(8) = 3
  EXPECT_DOUBLE_EQ(*metrics.Ndcg(HitLevel::kSid, 5),
                   (1 + 0.5) / 3);  // log2(4) = 2
  EXPECT_DOUBLE_EQ(*metrics.ReciprocalRank(HitLevel::kItem), (1 + 1.0 / 7) / 3);
  EXPECT_DOUBLE_EQ(*metrics.ReciprocalRank(HitLevel::kItem, 5), 1.0 / 3);
  EXPECT_DOUBLE_EQ(*metrics.ReciprocalRank(HitLevel::kItem, 10), (1 + 1.0 / 7) / 3);
  EXPECT_DOUBLE_EQ(metrics.ToMap().at("sid_mrr@3"), (1 + 1.0 / 3) / 3);
}

TEST(RankingMetricsTest, MatchesDiscountedGainOfAnExplicitRelevanceList) {
  // Oracle: NDCG from a list of 0/1 relevances, position by position, and the
  // ideal list that starts with the 1.
  Random random(5);
  RankingMetrics metrics({.num_leaves = 1}, 50);
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

// A list over a catalog of 9 items, item i under leaf i / 3, of which items 0, 4 and 8 are the head.
const CatalogShape kNineItems = {.num_leaves = 3, .levels = 2, .head = {1, 0, 0, 0, 1, 0, 0, 0, 1}};

PromptOutcome RandomOutcome(Random* random) {
  PromptOutcome outcome = Ranked(static_cast<int32_t>(random->Below(60)), static_cast<int32_t>(random->Below(60)));
  for (int i = 0; i < 4; ++i) outcome.top_items.push_back(static_cast<int32_t>(random->Below(7)));  // 7, 8: never
  outcome.top_leaves = {static_cast<int32_t>(random->Below(2))};
  outcome.shared_first = static_cast<int32_t>(random->Below(3));
  outcome.shared_top = std::max(outcome.shared_first, static_cast<int32_t>(random->Below(3)));
  if (random->Below(4) > 0) outcome.diversity = random->Uniform();
  outcome.unconstrained = 10;
  outcome.invalid = static_cast<int32_t>(random->Below(3));
  outcome.unconstrained_wide = 50;
  outcome.invalid_wide = outcome.invalid + static_cast<int32_t>(random->Below(5));
  return outcome;
}

TEST(RankingMetricsTest, SumsOfTwoRanksAddUpToOneRank) {
  RankingMetrics left(kNineItems, 50), right(kNineItems, 50), whole(kNineItems, 50);
  Random random(9);
  for (int n = 0; n < 40; ++n) {
    const PromptOutcome outcome = RandomOutcome(&random);
    (n % 3 == 0 ? left : right).Add(outcome);
    whole.Add(outcome);
  }
  std::vector<double> sums = left.ToSums();
  const std::vector<double> other = right.ToSums();
  ASSERT_EQ(sums.size(), other.size());
  for (size_t i = 0; i < sums.size(); ++i) sums[i] += other[i];
  RankingMetrics total(kNineItems, 50);
  ASSERT_TRUE(total.SetSums(sums).ok());
  const auto want = whole.ToMap(), got = total.ToMap();
  ASSERT_EQ(want.size(), got.size());
  for (const auto& [name, value] : want) EXPECT_NEAR(got.at(name), value, 1e-12) << name;
  EXPECT_DOUBLE_EQ(got.at("coverage"), 2.0 / 3);
}

TEST(RankingMetricsTest, ListsAndBeamsAreSummedUpAsASlowCountOverAllPromptsSays) {
  RankingMetrics metrics(kNineItems, 50);
  Random random(11);
  std::vector<PromptOutcome> outcomes;
  for (int n = 0; n < 50; ++n) {
    outcomes.push_back(RandomOutcome(&random));
    metrics.Add(outcomes.back());
  }
  double diversity = 0, diverse = 0, first = 0, top = 0, invalid = 0;
  std::map<int32_t, std::set<int>> lists;  // of each item: which lists hold it
  for (int n = 0; n < 50; ++n) {
    const PromptOutcome& outcome = outcomes[static_cast<size_t>(n)];
    if (outcome.diversity) {
      diversity += *outcome.diversity;
      diverse += 1;
    }
    first += outcome.shared_first == 2;
    top += outcome.shared_top >= 1;
    invalid += outcome.invalid_wide;
    for (const int32_t item : outcome.top_items) lists[item].insert(n);
  }
  const auto found = metrics.ToMap();
  EXPECT_NEAR(found.at("diversity"), diversity / diverse, 1e-12);
  EXPECT_NEAR(found.at("level_2_accuracy"), first / 50, 1e-12);
  EXPECT_NEAR(found.at("level_1_accuracy@10"), top / 50, 1e-12);
  EXPECT_NEAR(found.at("hallucination@50"), invalid / (50 * 50), 1e-12);
  // Of the head only item 8 never occurs, of the tail only item 7.
  EXPECT_DOUBLE_EQ(found.at("item_coverage"), 7.0 / 9);
  EXPECT_DOUBLE_EQ(found.at("head_coverage"), 2.0 / 3);
  EXPECT_DOUBLE_EQ(found.at("tail_coverage"), 5.0 / 6);
  double places = 0, differences = 0;
  for (int32_t a = 0; a < 9; ++a) {
    places += static_cast<double>(lists[a].size());
    for (int32_t b = 0; b < 9; ++b) {
      differences += std::fabs(static_cast<double>(lists[a].size()) - static_cast<double>(lists[b].size()));
    }
  }
  EXPECT_NEAR(found.at("head_exposure"), static_cast<double>(lists[0].size() + lists[4].size()) / places, 1e-12);
  EXPECT_NEAR(found.at("head_exposure") + found.at("tail_exposure"), 1, 1e-12);
  EXPECT_NEAR(found.at("gini"), differences / 81 / (2 * places / 9), 1e-12);  // mean difference over twice the mean
}

TEST(HeadItemsTest, AreTheFewestMostPopularOnesThatMakeUpTheShare) {
  Random random(4);
  for (int n = 0; n < 200; ++n) {
    std::vector<int64_t> events;
    for (int i = 0; i < 12; ++i) events.push_back(static_cast<int64_t>(random.Below(6)));
    const double share = random.Uniform();
    const std::vector<uint8_t> head = HeadItems(events, share);
    // Oracle: the smallest of all 4,096 subsets that reaches the share has as many items, and no larger least one.
    int64_t total = 0;
    for (const int64_t count : events) total += count;
    size_t fewest = events.size();
    for (uint32_t subset = 0; subset < 4096; ++subset) {
      int64_t sum = 0;
      for (size_t i = 0; i < 12; ++i) sum += (subset >> i & 1) != 0 ? events[i] : 0;
      if (static_cast<double>(sum) >= share * static_cast<double>(total)) {
        fewest = std::min<size_t>(fewest, static_cast<size_t>(std::popcount(subset)));
      }
    }
    EXPECT_EQ(static_cast<size_t>(std::count(head.begin(), head.end(), 1)), fewest);
    for (size_t a = 0; a < 12; ++a) {
      for (size_t b = 0; b < 12; ++b) {
        if (head[a] == 1 && head[b] == 0) {
          EXPECT_GE(events[a], events[b]);
        }
      }
    }
  }
  EXPECT_THAT(HeadItems(std::vector<int64_t>{1, 3, 3}, 0), testing::Each(0));
  EXPECT_THAT(HeadItems(std::vector<int64_t>{1, 3, 3}, 0.4), testing::ElementsAre(0, 1, 0));
  EXPECT_THAT(HeadItems(std::vector<int64_t>{1, 3, 3}, 1), testing::Each(1));
}

TEST(RankingMetricsTest, SumsOfAnotherCatalogAreRefused) {
  RankingMetrics three({.num_leaves = 3}, 50), four({.num_leaves = 4}, 50);
  EXPECT_EQ(three.SetSums(four.ToSums()).code(), absl::StatusCode::kInvalidArgument);
}

TEST(RankingMetricsTest, CutoffsBeyondTheListAreAbsentNotLow) {
  RankingMetrics metrics({.num_leaves = 1}, /*depth=*/20);
  metrics.Add(Ranked(3, 3));
  EXPECT_TRUE(metrics.HitRate(HitLevel::kItem, 20).has_value());
  EXPECT_FALSE(metrics.HitRate(HitLevel::kItem, 50).has_value());
  EXPECT_FALSE(metrics.HitRate(HitLevel::kItem, 4).has_value());  // not a cutoff that is summed
  EXPECT_THAT(metrics.ToMap(), Not(Contains(Key("hr@50"))));
}

TEST(RankingMetricsTest, NothingMeasuredGivesNoNumber) {
  RankingMetrics metrics({.num_leaves = 2}, 50);
  EXPECT_FALSE(metrics.HitRate(HitLevel::kItem, 10).has_value());
  EXPECT_FALSE(metrics.Hallucination().has_value());
  EXPECT_FALSE(metrics.Coverage().has_value());
  metrics.Add(Ranked(1, 1));  // no unconstrained beams with it
  EXPECT_FALSE(metrics.Hallucination().has_value());
}

TEST(RankingMetricsTest, HallucinationIsTheShareOfInvalidBeams) {
  RankingMetrics metrics({.num_leaves = 2}, 50);
  PromptOutcome outcome = Ranked(0, 0);
  outcome.unconstrained = 10;
  outcome.invalid = 1;
  metrics.Add(outcome);
  outcome.unconstrained = 6;
  outcome.invalid = 3;
  metrics.Add(outcome);
  EXPECT_DOUBLE_EQ(*metrics.Hallucination(), 4.0 / 16);
}

TEST(RankingMetricsTest, TruthIsTheMeanOverThePromptsThatHaveOne) {
  RankingMetrics metrics({.num_leaves = 2}, 20), other({.num_leaves = 2}, 20);
  EXPECT_FALSE(metrics.TrueMass().has_value());
  metrics.Add(Ranked(1, 1));  // of real events
  EXPECT_THAT(metrics.ToMap(), Not(Contains(Key("mass@10"))));
  PromptOutcome outcome = Ranked(2, 2);
  outcome.true_mass = 0.25;
  outcome.true_utility = -3;
  metrics.Add(outcome);
  outcome.true_mass = 0.75;
  outcome.true_utility = 5;
  other.Add(outcome);
  std::vector<double> sums = metrics.ToSums();
  for (size_t i = 0; i < sums.size(); ++i) sums[i] += other.ToSums()[i];
  ASSERT_TRUE(metrics.SetSums(sums).ok());
  EXPECT_DOUBLE_EQ(metrics.ToMap().at("mass@10"), 0.5);
  EXPECT_DOUBLE_EQ(metrics.ToMap().at("utility@10"), 1);
  // A list of five is no list of ten.
  RankingMetrics narrow({.num_leaves = 2}, 5);
  narrow.Add(outcome);
  EXPECT_FALSE(narrow.TrueMass().has_value());
  EXPECT_FALSE(narrow.TrueUtility().has_value());
}

}  // namespace
}  // namespace sluice::learner
