#include "learner/evaluate/strata.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "common/random/random.h"
#include "tests/learner/evaluate/some_outcomes.h"

namespace sluice::learner {
namespace {

using ::testing::ElementsAre;

TEST(DecilesTest, TwentyDifferentKeysMakeTenPairs) {
  std::vector<double> keys;
  for (int i = 0; i < 20; ++i) keys.push_back((i * 7) % 20);
  const std::vector<int> tenths = Deciles(keys);
  for (int i = 0; i < 20; ++i) EXPECT_EQ(tenths[static_cast<size_t>(i)], (i * 7) % 20 / 2 + 1) << i;
}

TEST(DecilesTest, EqualKeysShareTheTenthOfTheirMiddle) {
  // Nine equal ones at places 0 to 8 of 10: their middle is place 4, within the fifth tenth.
  EXPECT_THAT(Deciles(std::vector<double>{1, 1, 1, 1, 2, 1, 1, 1, 1, 1}), ElementsAre(5, 5, 5, 5, 10, 5, 5, 5, 5, 5));
  EXPECT_THAT(Deciles(std::vector<double>{3}), ElementsAre(6));
  EXPECT_TRUE(Deciles(std::vector<double>()).empty());
}

TEST(DecilesTest, OrderOfTheUsersDoesNotMatter) {
  Random random(2);
  std::vector<double> keys;
  for (int i = 0; i < 101; ++i) keys.push_back(static_cast<double>(random.Below(30)));
  std::map<double, int> tenth_of;
  const std::vector<int> tenths = Deciles(keys);
  for (size_t i = 0; i < keys.size(); ++i) {
    const auto [found, fresh] = tenth_of.emplace(keys[i], tenths[i]);
    EXPECT_EQ(found->second, tenths[i]);
    // Oracle: the middle of the places that keys of this value take up, counted one by one.
    double below = 0, equal = 0;
    for (const double other : keys) {
      below += other < keys[i];
      equal += other == keys[i];
    }
    EXPECT_EQ(tenths[i], static_cast<int>((below + equal / 2) * 10 / 101) + 1);
  }
}

TEST(StratifyTest, StrataOfAKindPartitionTheUsersAndAverageToTheWhole) {
  const OutcomeTable table = SomeOutcomes(200, 8);
  RankingMetrics metrics({.num_leaves = 1, .levels = 3}, 50);
  for (const OutcomeRow& row : table.rows) metrics.Add(row.outcome);
  const auto whole = metrics.ToMap();
  std::map<std::string, double> users, hits, gains;
  for (const auto& [name, values] : Stratify(table)) {
    const std::string kind = name.substr(0, name.find('/'));
    users[kind] += values.at("prompts");
    hits[kind] += values.at("prompts") * values.at("hr@3");
    gains[kind] += values.at("prompts") * values.at("ndcg@50");
    EXPECT_LE(values.at("key_low"), values.at("key_high"));
  }
  EXPECT_EQ(users.size(), 3u);
  for (const auto& [kind, count] : users) {
    EXPECT_EQ(count, 200) << kind;
    EXPECT_NEAR(hits[kind] / 200, whole.at("hr@3"), 1e-12) << kind;
    EXPECT_NEAR(gains[kind] / 200, whole.at("ndcg@50"), 1e-12) << kind;
  }
}

TEST(StratifyTest, HardTargetsAreThoseThatTheRuleRanksLowOrMayNotRank) {
  OutcomeTable table = SomeOutcomes(30, 8);
  for (size_t i = 0; i < 30; ++i) {
    table.rows[i].rule_rank = static_cast<int32_t>(i);  // 0: may not be recommended
    table.rows[i].popularity = static_cast<int32_t>(i);
    table.rows[i].history = i == 0 ? 2 : i == 1 ? 3 : 101;
  }
  const auto strata = Stratify(table);
  EXPECT_EQ(strata.at("difficulty_decile/01").at("key_low"), 1);
  EXPECT_EQ(strata.at("difficulty_decile/01").at("key_high"), 3);
  EXPECT_EQ(strata.at("difficulty_decile/10").at("key_low"), 28);
  EXPECT_EQ(strata.at("difficulty_decile/10").at("prompts"), 3);
  EXPECT_EQ(strata.at("popularity_decile/01").at("key_low"), 27);  // the most popular
  EXPECT_EQ(strata.at("history/001-002").at("prompts"), 1);
  EXPECT_EQ(strata.at("history/003-005").at("prompts"), 1);
  EXPECT_EQ(strata.at("history/101+").at("prompts"), 28);
  // Another policy on the same users is cut alike.
  for (OutcomeRow& row : table.rows) row.outcome.item_rank = 1;
  const auto other = Stratify(table);
  for (const auto& [name, values] : strata) EXPECT_EQ(other.at(name).at("prompts"), values.at("prompts")) << name;
}

}  // namespace
}  // namespace sluice::learner
