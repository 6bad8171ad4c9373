// What lists are worth in a market whose truth is known, against sums over the whole catalog.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

#include "common/market/market.h"
#include "learner/run/evaluate_policy.h"

namespace sluice::learner {
namespace {

std::shared_ptr<const Dataset> SmallMarket() {
  MarketOptions options;
  options.regions = 4;
  options.cells = 4;
  options.items_per_cell = 5;
  options.dim = 4;
  options.utility_scale = 3;
  options.slate = 20;
  options.history = 5;
  options.sft_users = 2;
  options.rl_users = 1;
  options.heldout_users = 30;
  return Dataset::FromContents(GenerateMarket(options, 6, "m", 5, [] { return absl::OkStatus(); }).value()).value();
}

// Softmax of the products of the stored vectors.
std::vector<double> Probabilities(const MarketTruth& truth, int32_t user) {
  const MarketTruth::Contents& c = truth.contents();
  std::vector<double> p;
  double total = 0;
  for (int64_t item = 0; item < truth.num_items(); ++item) {
    double utility = 0;
    for (int d = 0; d < c.dim; ++d)
      utility += double{c.user_vectors[user * c.dim + d]} * c.item_vectors[item * c.dim + d];
    p.push_back(std::exp(utility));
    total += p.back();
  }
  for (double& value : p) value /= total;
  return p;
}

TEST(EvaluateTruthTest, BeamsAreWorthTheTrueProbabilitiesOfTheirFirstTenItems) {
  const auto dataset = SmallMarket();
  const Trie& trie = dataset->trie();
  const int32_t user = 10;
  std::vector<Completion> beams(14);
  const int32_t leaves[] = {3, 40, 41, 7, 79, 0, 12, 13, 55, 60, 61, 62, 2, 5};
  for (size_t i = 0; i < beams.size(); ++i) beams[i].leaf = leaves[i];
  const std::vector<int32_t> excluded = {trie.ItemsOfLeaf(40)[0]};
  PromptOutcome outcome = JudgeBeams(trie, 1, excluded, beams, {});
  outcome.user = user;
  JudgeByTruth(nullptr, &outcome);
  EXPECT_FALSE(outcome.true_mass.has_value());
  JudgeByTruth(dataset->truth(), &outcome);
  const std::vector<double> p = Probabilities(*dataset->truth(), user);
  double mass = 0, utility = 0;
  for (const size_t i : {0, 2, 3, 4, 5, 6, 7, 8, 9, 10}) {  // ten without the excluded one
    const int32_t item = trie.ItemsOfLeaf(leaves[i])[0];
    mass += p[item];
    utility += dataset->truth()->Utility(user, item) / 10;
  }
  ASSERT_TRUE(outcome.true_mass.has_value());
  EXPECT_NEAR(*outcome.true_mass, mass, 1e-12);
  EXPECT_NEAR(*outcome.true_utility, utility, 1e-12);
}

TEST(EvaluateTruthTest, TheBestListsHoldTheMostMassAndTheMostLoggedTargets) {
  const auto dataset = SmallMarket();
  const MarketTruth& truth = *dataset->truth();
  const std::vector<Example> examples = dataset->Examples(SplitLabel::kTest);
  for (const bool exclude : {false, true}) {
    double mass = 0, hits = 0;
    for (const Example& example : examples) {
      const std::vector<double> p = Probabilities(truth, example.user);
      std::set<int32_t> seen;
      if (exclude) {
        const auto events = dataset->Events(example.user).first(example.position);
        seen.insert(events.begin(), events.end());
      }
      std::vector<int32_t> order;
      for (int32_t item = 0; item < truth.num_items(); ++item) {
        if (seen.count(item) == 0) order.push_back(item);
      }
      std::sort(order.begin(), order.end(), [&p](int32_t a, int32_t b) { return p[a] > p[b]; });
      for (int i = 0; i < 10; ++i) {
        mass += p[order[i]] / static_cast<double>(examples.size());
        hits += order[i] == dataset->Target(example) ? 1 / static_cast<double>(examples.size()) : 0;
      }
    }
    const RankingMetrics metrics = EvaluateTruth(*dataset, examples, kHeadShare, 0, exclude);
    EXPECT_NEAR(*metrics.TrueMass(), mass, 1e-9);
    EXPECT_NEAR(*metrics.HitRate(HitLevel::kItem, 10), hits, 1e-12);
    // What is best for the users is not what is best for the log.
    const RankingMetrics exposed = EvaluateTruth(*dataset, examples, kHeadShare, 1, exclude);
    EXPECT_LT(*exposed.TrueMass(), mass);
    EXPECT_GT(*metrics.TrueUtility(), *exposed.TrueUtility());
  }
}

TEST(EvaluateTruthTest, TheCooccurrenceRuleIsJudgedByTruthToo) {
  const auto dataset = SmallMarket();
  std::vector<PromptOutcome> outcomes;
  const std::vector<Example> examples = dataset->Examples(SplitLabel::kTest);
  const RankingMetrics metrics = EvaluateCooccurrenceRule(*dataset, examples, kHeadShare, &outcomes);
  // Per user, by the file that comparisons read.
  OutcomeTable table;
  table.setting.beams = 50;
  table.rows = OutcomeRows(*dataset, examples, std::move(outcomes), true);
  AddTruthColumns(&table);
  const auto read = OutcomesFromText(OutcomesToText(table));
  ASSERT_TRUE(read.ok()) << read.status();
  const auto masses = ValuesOf(*read, "mass@10");
  ASSERT_TRUE(masses.ok()) << masses.status();
  ASSERT_EQ(masses->size(), examples.size());
  double mean = 0;
  for (const double mass : *masses) mean += mass / static_cast<double>(masses->size());
  EXPECT_NEAR(*metrics.TrueMass(), mean, 1e-9);

  OutcomeTable narrow = table;
  narrow.setting.beams = 5;
  narrow.more_columns.clear();
  for (OutcomeRow& row : narrow.rows) row.more.clear();
  AddTruthColumns(&narrow);
  EXPECT_TRUE(narrow.more_columns.empty());
}

}  // namespace
}  // namespace sluice::learner
