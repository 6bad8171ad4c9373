#include "learner/evaluate/compare.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/random/random.h"
#include "tests/learner/evaluate/some_outcomes.h"

namespace sluice::learner {
namespace {

using ::testing::HasSubstr;

// `users` of whom the first `hits` have their target in front, the others nowhere.
OutcomeTable Hits(int users, int hits) {
  OutcomeTable table = SomeOutcomes(users, 1);
  for (int i = 0; i < users; ++i) {
    table.rows[static_cast<size_t>(i)].outcome.item_rank = i < hits ? 1 : 0;
    table.rows[static_cast<size_t>(i)].outcome.sid_rank = i < hits ? 1 : 0;
  }
  return table;
}

CompareOptions Of(std::vector<std::string> metrics) {
  CompareOptions options;
  options.bootstrap.resamples = 400;
  options.metrics = std::move(metrics);
  return options;
}

const ArmDifference& Only(const Comparison& comparison) {
  EXPECT_EQ(comparison.differences.size(), 1u);
  return comparison.differences.at(0);
}

TEST(CompareTest, AClearDifferenceIsRealAndNoDifferenceIsNot) {
  const auto comparison =
      Compare({{"a", {Hits(1000, 100)}}, {"b", {Hits(1000, 200)}}, {"c", {Hits(1000, 100)}}}, Of({"hr@10"}));
  ASSERT_TRUE(comparison.ok()) << comparison.status();
  ASSERT_EQ(comparison->differences.size(), 2u);
  const ArmDifference &better = comparison->differences[0], &same = comparison->differences[1];
  EXPECT_NEAR(better.difference.mean, 0.1, 1e-12);
  EXPECT_TRUE(better.real_alone());
  EXPECT_TRUE(comparison->Real(better));
  // 100 users of 1,000 differ, by one: the standard error is sqrt(.1 * .9 / 999).
  EXPECT_NEAR(better.p, std::erfc(0.1 / std::sqrt(0.09 / 999) / std::sqrt(2.0)), 1e-15);
  EXPECT_NEAR(better.difference.high - better.difference.low, 2 * 1.96 * std::sqrt(0.09 / 999), 0.004);
  EXPECT_EQ(same.difference.mean, 0);
  EXPECT_EQ(same.difference.low, 0);
  EXPECT_EQ(same.difference.high, 0);
  EXPECT_EQ(same.p, 1);
  EXPECT_FALSE(same.real_alone() || comparison->Real(same));
  EXPECT_THAT(ComparisonToText(*comparison), HasSubstr("2 differences were looked at: 1 are real"));
}

TEST(CompareTest, SeedsOfAnArmAreAveragedUserByUserBeforeTheBootstrap) {
  // Two seeds whose hits lie on opposite halves: each user has .5 on average, so the arm's mean has no error at all.
  OutcomeTable left = Hits(100, 50), right = Hits(100, 0);
  for (size_t i = 50; i < 100; ++i) right.rows[i].outcome.item_rank = 1;
  const auto comparison = Compare({{"none", {Hits(100, 0)}}, {"seeds", {left, right}}}, Of({"hr@1"}));
  ASSERT_TRUE(comparison.ok()) << comparison.status();
  const ArmDifference& difference = Only(*comparison);
  EXPECT_NEAR(difference.difference.mean, 0.5, 1e-12);
  EXPECT_NEAR(difference.difference.low, 0.5, 1e-12);
  EXPECT_NEAR(difference.difference.high, 0.5, 1e-12);
  const ArmValue& value = comparison->values[1][0];
  EXPECT_THAT(value.by_run, testing::ElementsAre(0.5, 0.5));
  EXPECT_EQ(value.spread, 0);
  EXPECT_FALSE(comparison->values[0][0].spread.has_value());
}

TEST(CompareTest, DifferencesAgreeWithThePairedBootstrapOfEachMetric) {
  const OutcomeTable a = SomeOutcomes(80, 3);
  OutcomeTable b = SomeOutcomes(80, 4);
  for (size_t i = 0; i < 80; ++i) b.rows[i].outcome.position = a.rows[i].outcome.position;
  CompareOptions options = Of({});
  options.bootstrap.seed = 9;
  const auto comparison = Compare({{"a", {a}}, {"b", {b}}}, options);
  ASSERT_TRUE(comparison.ok()) << comparison.status();
  EXPECT_EQ(comparison->differences.size(), 3 * kCutoffs.size());
  for (const ArmDifference& one : comparison->differences) {
    const auto want = PairedBootstrap(*ValuesOf(b, one.metric), *ValuesOf(a, one.metric), options.bootstrap);
    ASSERT_TRUE(want.ok());
    EXPECT_NEAR(one.difference.mean, want->mean, 1e-12) << one.metric;
    EXPECT_NEAR(one.difference.low, want->low, 1e-12) << one.metric;
    EXPECT_NEAR(one.difference.high, want->high, 1e-12) << one.metric;
  }
}

TEST(CompareTest, LooksAtSeveralReferencesAndAtNoPairTwice) {
  CompareOptions options = Of({"hr@10", "ndcg@10"});
  options.against = {0, 2};
  const auto comparison = Compare({{"a", {Hits(50, 5)}}, {"b", {Hits(50, 6)}}, {"c", {Hits(50, 7)}}}, options);
  ASSERT_TRUE(comparison.ok()) << comparison.status();
  EXPECT_EQ(comparison->differences.size(), 3 * 2u);  // b - a, c - a, b - c
  const auto document = nlohmann::json::parse(ComparisonToJson(*comparison));
  EXPECT_EQ(document["differences_looked_at"], 6);
  EXPECT_EQ(document["differences"][4]["arm"], "b");
  EXPECT_EQ(document["differences"][4]["against"], "c");
  EXPECT_NEAR(document["differences"][4]["mean"].get<double>(), -1.0 / 50, 1e-12);
  EXPECT_NEAR(document["arms"][1]["metrics"]["hr@10"]["mean"].get<double>(), 6.0 / 50, 1e-12);
}

TEST(CompareTest, WhatCannotBePairedIsRefusedInWords) {
  const OutcomeTable good = Hits(20, 5);
  const auto refused = [&good](OutcomeTable other, const char* why) {
    const absl::Status status = Compare({{"first", {good}}, {"second", {other}}}, Of({"hr@10"})).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << why;
    EXPECT_THAT(std::string(status.message()), HasSubstr(why));
    EXPECT_THAT(std::string(status.message()), HasSubstr("'second'"));
  };
  OutcomeTable other = good;
  other.setting.split = "validation";
  refused(other, "split test, 50 beams");
  other = good;
  other.setting.data = "d2";
  refused(other, "data d2");
  other = good;
  other.setting.beams = 20;
  refused(other, "20 beams");
  other = good;
  other.setting.exclude_history = false;
  refused(other, "history recommended");
  refused(Hits(19, 5), "on 20 users and 'second' on 19");
  other = good;
  other.rows[4].outcome.user = 40;
  refused(other, "user 4 against user 40");

  EXPECT_EQ(Compare({{"first", {good}}}, Of({})).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Compare({{"first", {good}}, {"second", {}}}, Of({})).status().code(), absl::StatusCode::kInvalidArgument);
  CompareOptions options = Of({});
  options.against = {2};
  EXPECT_THAT(std::string(Compare({{"first", {good}}, {"second", {good}}}, options).status().message()),
              HasSubstr("no arm number 3"));
  EXPECT_THAT(std::string(Compare({{"first", {good}}, {"second", {good}}}, Of({"hr@99"})).status().message()),
              HasSubstr("50 beams"));
}

TEST(HolmTest, AdjustsStepByStep) {
  // Sorted .01, .02, .03, .6 times 4, 3, 2, 1: .04, .06, .06 (never less than before), .6.
  const std::vector<double> adjusted = HolmAdjusted(std::vector<double>{0.03, 0.01, 0.6, 0.02});
  EXPECT_NEAR(adjusted[1], 0.04, 1e-12);
  EXPECT_NEAR(adjusted[3], 0.06, 1e-12);
  EXPECT_NEAR(adjusted[0], 0.06, 1e-12);
  EXPECT_NEAR(adjusted[2], 0.6, 1e-12);
  EXPECT_EQ(HolmAdjusted(std::vector<double>{0.7, 0.8})[1], 1);
}

TEST(HolmTest, KeepsTheShareOfFamiliesWithAFalseFindingBelowTheLevel) {
  // 400 families of 10 true nulls: about 5 % have a p-value below .05 after correction, nearly 40 % before.
  Random random(12);
  int before = 0, after = 0;
  for (int family = 0; family < 400; ++family) {
    std::vector<double> p_values;
    for (int i = 0; i < 10; ++i) p_values.push_back(random.Uniform());
    const std::vector<double> adjusted = HolmAdjusted(p_values);
    before += *std::min_element(p_values.begin(), p_values.end()) < 0.05;
    after += *std::min_element(adjusted.begin(), adjusted.end()) < 0.05;
  }
  EXPECT_GT(before, 120);
  EXPECT_LT(after, 36);
}

}  // namespace
}  // namespace sluice::learner
