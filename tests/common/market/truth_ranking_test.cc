#include "common/market/truth_ranking.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "common/market/market.h"

namespace sluice {
namespace {

std::shared_ptr<const MarketTruth> Truth() {
  MarketOptions options;
  options.cells = 3;
  options.dim = 4;
  options.slate = 5;
  options.sft_users = 300;
  options.rl_users = 0;
  options.heldout_users = 1;
  return GenerateMarket(options, 9, "m", 10, [] { return absl::OkStatus(); })->truth;
}

TruthRanking Ranking(std::shared_ptr<const MarketTruth> truth, const std::string& name) {
  return TruthRanking::Create(std::move(truth), ParseTruthRanking(name).value()).value();
}

TEST(TruthRankingTest, ReadsNames) {
  EXPECT_EQ(*ParseTruthRanking("truth"), TruthRankingOptions());
  EXPECT_EQ(*ParseTruthRanking("truth~@log"), (TruthRankingOptions{.noisy = true, .logged = true}));
  EXPECT_EQ(*ParseTruthRanking("truth:pop:0.5"), (TruthRankingOptions{.error = RankerError::kPop, .share = 0.5}));
  EXPECT_EQ(*ParseTruthRanking("truth:fine~:0.8"),
            (TruthRankingOptions{.error = RankerError::kFine, .share = 0.8, .noisy = true}));
  EXPECT_EQ(*ParseTruthRanking("truth:cell@log:1"),
            (TruthRankingOptions{.error = RankerError::kCell, .share = 1, .logged = true}));
  EXPECT_EQ(*ParseTruthRanking("truth:noise~@log:.25"),
            (TruthRankingOptions{.error = RankerError::kNoise, .share = 0.25, .noisy = true, .logged = true}));
}

TEST(TruthRankingTest, RefusesNamesThatSayNothing) {
  for (const char* name : {"truth:", "truth:pop", "truth:pop:", "truth:pop:0", "truth:pop:1.5", "truth:pop:-0.5",
                           "truth:pop:nan", "truth:pops:0.5", "truth::0.5", "truth:pop@log~:0.5", "truth:pop:0.5:x",
                           "truth@", "truthful", "truth:pop :0.5", "", "pop:0.5"}) {
    const auto parsed = ParseTruthRanking(name);
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(std::string(parsed.status().message()), testing::HasSubstr("truth:KIND:SHARE")) << name;
  }
  EXPECT_TRUE(IsTruthRankingName("truth"));
  EXPECT_TRUE(IsTruthRankingName("truth:what"));
  EXPECT_TRUE(IsTruthRankingName("truth~"));
  EXPECT_FALSE(IsTruthRankingName("truthful"));
  EXPECT_FALSE(IsTruthRankingName("blend"));
}

TEST(TruthRankingTest, AShareIsAWholeNumberOfRegions) {
  const auto truth = Truth();
  EXPECT_EQ(Ranking(truth, "truth").bad_regions(), 0);
  EXPECT_EQ(Ranking(truth, "truth:pop:0.2").bad_regions(), 3);
  EXPECT_EQ(Ranking(truth, "truth:pop:0.5").bad_regions(), 8);
  EXPECT_EQ(Ranking(truth, "truth:pop:0.8").bad_regions(), 13);
  EXPECT_EQ(Ranking(truth, "truth:pop:1").bad_regions(), 16);
  EXPECT_EQ(TruthRanking::Create(truth, *ParseTruthRanking("truth:pop:0.01")).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(TruthRankingTest, IsMadeByNameForAMarketAlone) {
  EXPECT_EQ(TruthRanking::FromName(Truth(), "truth:pop:0.5")->bad_regions(), 8);
  EXPECT_EQ(TruthRanking::FromName(Truth(), "blend").status().code(), absl::StatusCode::kInvalidArgument);
  const absl::Status none = TruthRanking::FromName(nullptr, "truth:pop:0.5").status();
  EXPECT_EQ(none.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(none.message()), testing::HasSubstr("has no truth"));
}

TEST(TruthRankingTest, ScoresAreTheKindsOfErrorAsWritten) {
  const auto truth = Truth();
  const MarketTruth::Contents& c = truth->contents();
  const int items = static_cast<int>(truth->num_items());
  double mean = 0, square = 0;
  for (const float value : c.log_popularity) mean += value / static_cast<double>(items);
  for (const float value : c.log_popularity) square += (value - mean) * (value - mean) / static_cast<double>(items);
  const auto utility = [&](int user, int item) {
    double sum = 0;
    for (int d = 0; d < c.dim; ++d) sum += double{c.user_vectors[user * c.dim + d]} * c.item_vectors[item * c.dim + d];
    return sum;
  };
  // The mean of the utilities is the utility of the mean vector.
  const auto cell = [&](int user, int item) {
    double sum = 0;
    int members = 0;
    for (int other = 0; other < items; ++other) {
      if (c.item_cell[other] == c.item_cell[item]) sum += utility(user, other), ++members;
    }
    return sum / members;
  };
  int reliable = 0;
  for (int user = 0; user < 60; ++user) {
    const bool good = c.user_region[user] >= 8;
    reliable += good;
    EXPECT_EQ(Ranking(truth, "truth:pop:0.5").Reliable(user), good);
    for (int item = 0; item < items; item += 7) {
      const double u = utility(user, item);
      const double popularity = (c.log_popularity[item] - mean) / std::sqrt(square);
      const auto score = [&](const char* name) { return Ranking(truth, name).Score(user, item); };
      EXPECT_NEAR(score("truth"), u, 1e-6);
      EXPECT_NEAR(score("truth@log"), u + c.log_popularity[item], 1e-6);
      EXPECT_NEAR(score("truth:pop:0.5"), good ? u : popularity, 1e-5);
      EXPECT_NEAR(score("truth:fine:0.5"), good ? u : cell(user, item) + 3 * popularity, 1e-5);
      EXPECT_NEAR(score("truth:cell:0.5"), good ? u : 2 * cell(user, item) - u, 1e-5);
      EXPECT_NEAR(score("truth:pop@log:0.5"), good ? u + c.log_popularity[item] : popularity, 1e-5);
      EXPECT_NEAR(good ? score("truth:noise:0.5") : u, u, 1e-6);
      EXPECT_NEAR(good ? popularity : score("truth:pop~:0.5"), popularity, 1e-5);
    }
  }
  EXPECT_GT(reliable, 10);
  EXPECT_LT(reliable, 50);
}

TEST(TruthRankingTest, NoiseIsFixedAndHasItsDeviation) {
  const auto truth = Truth();
  const TruthRanking wrong = Ranking(truth, "truth:noise:1"), right = Ranking(truth, "truth~");
  double sum = 0, square = 0, right_sum = 0, right_square = 0, product = 0;
  int n = 0;
  for (int user = 0; user < 100; ++user) {
    for (int item = 0; item < 200; ++item, ++n) {
      const double a = wrong.Score(user, item);
      const double b = right.Score(user, item) - truth->Utility(user, item);
      ASSERT_EQ(a, wrong.Score(user, item));
      sum += a, square += a * a, right_sum += b, right_square += b * b, product += a * b;
    }
  }
  EXPECT_NEAR(sum / n, 0, 4 / std::sqrt(n));
  EXPECT_NEAR(square / n, 1, 0.05);
  EXPECT_NEAR(right_sum / n, 0, 8 / std::sqrt(n));
  EXPECT_NEAR(right_square / n, 4, 0.2);
  EXPECT_NEAR(product / n, 0, 8 / std::sqrt(n)) << "the two noises are draws of their own";
}

}  // namespace
}  // namespace sluice
