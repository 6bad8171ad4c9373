#include "reward_server/ranker/truth_ranker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/market/market.h"
#include "reward_server/ranker/score_groups.h"
#include "tests/testing/fake_ranker.h"

namespace sluice::reward {
namespace {

std::shared_ptr<const MarketTruth> Truth(uint64_t seed) {
  MarketOptions options;
  options.regions = 4;
  options.cells = 2;
  options.dim = 4;
  options.slate = 5;
  options.sft_users = 30;
  options.rl_users = 0;
  options.heldout_users = 1;
  return GenerateMarket(options, seed, "m", 10, [] { return absl::OkStatus(); })->truth;
}

TEST(TruthRankerTest, ScoresWhatTheNameSaysForTheUserOfTheQuery) {
  const auto truth = Truth(1);
  const TruthRankerFamily family(truth);
  const auto ranker = family.Make("truth:cell:0.5");
  ASSERT_TRUE(ranker.ok()) << ranker.status();
  EXPECT_EQ((*ranker)->name(), "truth:cell:0.5");
  EXPECT_EQ((*ranker)->num_items(), 64);
  EXPECT_EQ((*ranker)->num_users(), 31);
  std::vector<ItemQuery> queries;
  for (int32_t user = 0; user < 31; ++user) queries.push_back({.user = user, .history = {5}, .items = {0, 63, 7, 7}});
  const auto answers = (*ranker)->Score(queries);
  int reliable = 0;
  for (int32_t user = 0; user < 31; ++user) {
    ASSERT_TRUE(answers[user].ok());
    const std::vector<float>& scores = answers[user]->at(0);
    const bool good = truth->region(user) >= 2;
    reliable += good;
    for (size_t i = 0; i < 4; ++i) {
      const int32_t item = queries[user].items[i];
      const double utility = truth->Utility(user, item);
      EXPECT_FLOAT_EQ(scores[i], good ? utility : 2 * truth->CellUtility(user, item) - utility);
    }
  }
  EXPECT_GT(reliable, 0);
  EXPECT_LT(reliable, 31);
}

TEST(TruthRankerTest, AnUnknownUserIsRefusedAloneAndGetsNoNumber) {
  const TruthRankerFamily family(Truth(1));
  const auto ranker = family.Make("truth").value();
  GroupToScore known, unknown;
  known.user = 3;
  known.history = unknown.history = {1};
  known.candidates = unknown.candidates = {{2}, {3}};
  const auto results = ScoreGroups(*ranker, {&unknown, &known});
  EXPECT_EQ(results[0].status, GroupStatus::kInvalidInput);
  EXPECT_TRUE(results[0].heads.empty());
  EXPECT_EQ(results[1].status, GroupStatus::kOk);
}

TEST(TruthRankerTest, VersionFollowsNameAndTruth) {
  const TruthRankerFamily family(Truth(1)), same(Truth(1)), other(Truth(2));
  const auto version = [](const TruthRankerFamily& of, const char* name) { return of.Make(name).value()->version(); };
  EXPECT_EQ(version(family, "truth:pop:0.5"), version(same, "truth:pop:0.5"));
  EXPECT_NE(version(family, "truth:pop:0.5"), version(family, "truth:pop:0.75"));
  EXPECT_NE(version(family, "truth:pop:0.5"), version(other, "truth:pop:0.5"));
}

TEST(RankerFamilyTest, RankersAreMadeOnceWhenAskedFor) {
  RankerSet set;
  set.Add(std::make_unique<FakeRanker>("one"));
  set.SetFamily(std::make_unique<TruthRankerFamily>(Truth(1)));
  EXPECT_EQ(set.all().size(), 1u);
  std::atomic<const Ranker*> first = nullptr;
  std::atomic<int> different = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 50; ++round) {
        const Ranker* found = set.Find("truth:fine:0.5").value();
        const Ranker* expected = nullptr;
        if (!first.compare_exchange_strong(expected, found) && expected != found) ++different;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(different, 0);
  ASSERT_EQ(set.all().size(), 2u);
  EXPECT_EQ(set.all()[1]->name(), "truth:fine:0.5");
}

TEST(RankerFamilyTest, WrongNamesAreRefusedWithTheirReason) {
  RankerSet set;
  set.Add(std::make_unique<FakeRanker>("one"));
  set.SetFamily(std::make_unique<TruthRankerFamily>(Truth(1)));
  EXPECT_EQ(set.Find("truth:pops:0.5").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(set.Find("truth:pop:0.01").status().code(), absl::StatusCode::kInvalidArgument);
  const absl::Status none = set.Find("two").status();
  EXPECT_EQ(none.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(none.message()), testing::HasSubstr("there is one, truth:KIND:SHARE"));
  EXPECT_EQ(set.all().size(), 1u);
}

TEST(RankerFamilyTest, ClientsCannotHaveRankersMadeWithoutEnd) {
  RankerSet set;
  set.SetFamily(std::make_unique<TruthRankerFamily>(Truth(1)));
  const auto name = [](size_t i) { return absl::StrCat("truth:pop:0.5", std::string(i, '0')); };
  for (size_t i = 0; i < RankerSet::kMaxMadeRankers; ++i) ASSERT_TRUE(set.Find(name(i)).ok());
  EXPECT_EQ(set.Find(name(RankerSet::kMaxMadeRankers)).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(set.Find(name(0)).ok());
}

}  // namespace
}  // namespace sluice::reward
