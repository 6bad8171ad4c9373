#include "learner/evaluate/outcome_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_replace.h"
#include "common/file/file.h"
#include "common/random/random.h"
#include "tests/learner/evaluate/some_outcomes.h"

namespace sluice::learner {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(OutcomeFileTest, WhatIsWrittenIsReadBack) {
  OutcomeTable table = SomeOutcomes(20, 3);
  table.more_columns = {"mass@10"};
  for (OutcomeRow& row : table.rows) row.more = {row.outcome.user / 7.0};
  table.rows[3].more = {std::numeric_limits<double>::quiet_NaN()};
  const absl::StatusOr<OutcomeTable> read = OutcomesFromText(OutcomesToText(table));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_TRUE(read->setting == table.setting);
  EXPECT_EQ(read->more_columns, table.more_columns);
  ASSERT_EQ(read->rows.size(), table.rows.size());
  for (size_t i = 0; i < table.rows.size(); ++i) {
    const OutcomeRow &got = read->rows[i], &want = table.rows[i];
    EXPECT_EQ(got.outcome.user, want.outcome.user);
    EXPECT_EQ(got.outcome.position, want.outcome.position);
    EXPECT_EQ(got.outcome.item_rank, want.outcome.item_rank);
    EXPECT_EQ(got.outcome.sid_rank, want.outcome.sid_rank);
    EXPECT_EQ(got.outcome.shared_first, want.outcome.shared_first);
    EXPECT_EQ(got.outcome.shared_top, want.outcome.shared_top);
    EXPECT_EQ(got.outcome.diversity.has_value(), want.outcome.diversity.has_value());
    EXPECT_NEAR(got.outcome.diversity.value_or(0), want.outcome.diversity.value_or(0), 1e-5);
    EXPECT_EQ(got.outcome.unconstrained, want.outcome.unconstrained);
    EXPECT_EQ(got.outcome.invalid, want.outcome.invalid);
    EXPECT_EQ(got.outcome.unconstrained_wide, want.outcome.unconstrained_wide);
    EXPECT_EQ(got.outcome.invalid_wide, want.outcome.invalid_wide);
    EXPECT_EQ(got.history, want.history);
    EXPECT_EQ(got.popularity, want.popularity);
    EXPECT_EQ(got.rule_rank, want.rule_rank);
    EXPECT_TRUE(i == 3 || got.more[0] == want.more[0]);
  }
  EXPECT_TRUE(std::isnan(read->rows[3].more[0]));
}

TEST(OutcomeFileTest, TheHeaderAndARowLookAsDocumented) {
  OutcomeTable table = SomeOutcomes(1, 3);
  OutcomeRow& row = table.rows[0];
  row.outcome = {.user = 5, .position = 7, .item_rank = 3, .sid_rank = 2, .shared_first = 1, .shared_top = 4};
  row.outcome.unconstrained = 10;
  row.history = 7;
  row.popularity = 12;
  row.rule_rank = 90;
  const std::string text = OutcomesToText(table);
  EXPECT_THAT(text, HasSubstr("\"sluice_outcomes\":1"));
  EXPECT_THAT(text,
              HasSubstr("\nuser,position,item_rank,sid_rank,shared_first,shared_top,diversity,unconstrained,invalid,"
                        "wide,wide_invalid,history,popularity,rule_rank\n5,7,3,2,1,4,,10,0,0,0,7,12,90\n"));
}

TEST(OutcomeFileTest, WhatIsTornOrForeignIsRefusedWithItsLine) {
  const std::string good = OutcomesToText(SomeOutcomes(3, 1));
  ASSERT_TRUE(OutcomesFromText(good).ok());
  const auto refused = [](const std::string& text, const std::string& why) {
    const absl::Status status = OutcomesFromText(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(why));
  };
  refused("", "cut off");
  refused(good.substr(0, good.size() - 1), "cut off");
  refused("user,item\n1,2\n", "line 1");
  refused(absl::StrReplaceAll(good, {{"\"sluice_outcomes\":1", "\"sluice_outcomes\":9"}}), "another release");
  // Beyond 32 bits; it used to be cut.
  refused(absl::StrReplaceAll(good, {{"\"beams\":", "\"beams\":42949672960"}}), "beams: want a whole number from 0 to");
  refused(absl::StrReplaceAll(good, {{"sid_rank,", ""}}), "line 2");
  refused(good + "1,2,3\n", "line 6 has 3 cells");
  refused(good + "1,2,x,0,0,0,,0,0,0,0,1,1,1\n", "'x' as item_rank");
  refused(good + "1,2,-3,0,0,0,,0,0,0,0,1,1,1\n", "'-3' as item_rank");
  refused(good + "1,2,3,0,0,0,nan,0,0,0,0,1,1,1\n", "'nan' as diversity");
  refused(good.substr(0, good.find('\n') + 1), "no columns");
}

TEST(OutcomeFileTest, ValuesAreThoseThatTheMetricsSumUp) {
  const OutcomeTable table = SomeOutcomes(60, 5);
  RankingMetrics metrics({.num_leaves = 1, .levels = 3}, 50);
  for (const OutcomeRow& row : table.rows) metrics.Add(row.outcome);
  for (const auto& [name, want] : metrics.ToMap()) {
    if (name == "prompts" || name == "coverage" || name == "diversity")
      continue;  // not of single users; absent for some
    const absl::StatusOr<std::vector<double>> values = ValuesOf(table, name);
    ASSERT_TRUE(values.ok()) << values.status();
    ASSERT_EQ(values->size(), table.rows.size());
    double sum = 0;
    for (const double value : *values) sum += value;
    EXPECT_NEAR(sum / 60, want, 1e-12) << name;
  }
}

TEST(OutcomeFileTest, MetricsThatTheRowsDoNotHoldAreRefusedInWords) {
  OutcomeTable table = SomeOutcomes(4, 2);
  table.setting.beams = 20;
  const auto refused = [&table](const char* metric, const char* why) {
    const absl::Status status = ValuesOf(table, metric).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << metric;
    EXPECT_THAT(std::string(status.message()), HasSubstr(why)) << metric;
  };
  refused("hr@50", "20 beams");
  refused("hr", "want hr@K");
  refused("hr@0", "want hr@K");
  refused("mass@10", "want hr@K");
  refused("level_4_accuracy", "3 levels");
  table.rows[2].outcome.unconstrained = 0;
  refused("hallucination", "unconstrained");
  table.more_columns = {"mass@10"};
  for (OutcomeRow& row : table.rows) row.more = {0.5};
  EXPECT_THAT(*ValuesOf(table, "mass@10"), ElementsAre(0.5, 0.5, 0.5, 0.5));
  table.rows[1].more = {std::numeric_limits<double>::quiet_NaN()};
  refused("mass@10", "no value");
}

}  // namespace
}  // namespace sluice::learner
