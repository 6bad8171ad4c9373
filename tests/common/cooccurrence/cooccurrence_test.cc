#include "common/cooccurrence/cooccurrence.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/file/file.h"
#include "common/random/random.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using Sequences = std::vector<std::vector<int32_t>>;

// Leave-one-out over `sequences`; the semantic IDs do not matter here.
std::shared_ptr<const Dataset> MakeDataset(const Sequences& sequences, int32_t items) {
  Dataset::Contents contents;
  contents.levels = 2;
  contents.codes = static_cast<int>(std::ceil(std::sqrt(items)));
  for (int32_t item = 0; item < items; ++item) {
    contents.item_names.push_back(absl::StrCat(item));
    contents.item_codes.push_back(item / contents.codes);
    contents.item_codes.push_back(item % contents.codes);
  }
  contents.first_event = {0};
  for (const std::vector<int32_t>& sequence : sequences) {
    contents.user_names.push_back(absl::StrCat("u", contents.user_names.size()));
    for (size_t i = 0; i < sequence.size(); ++i) {
      contents.event_item.push_back(sequence[i]);
      contents.event_split.push_back(i + 1 == sequence.size()   ? SplitLabel::kTest
                                     : i + 2 == sequence.size() ? SplitLabel::kValidation
                                                                : SplitLabel::kTrain);
    }
    contents.first_event.push_back(static_cast<int64_t>(contents.event_item.size()));
  }
  auto dataset = Dataset::FromContents(std::move(contents));
  EXPECT_TRUE(dataset.ok()) << dataset.status();
  return *dataset;
}

// The rule as written in words, over maps.
class SlowRule {
 public:
  explicit SlowRule(const Sequences& training) {
    for (const std::vector<int32_t>& s : training) {
      for (size_t a = 0; a < s.size(); ++a) {
        pop_[s[a]] += 1;
        for (size_t b = a + 1; b < s.size() && b <= a + 4; ++b) {
          co_[{s[a], s[b]}] += 1.0 / (b - a);
          co_[{s[b], s[a]}] += 0.5 / (b - a);
        }
      }
    }
  }
  double Score(const std::vector<int32_t>& history, int32_t item) {
    double score = 0;
    for (size_t k = 0; k < 10 && k < history.size(); ++k) {
      score += co_[{history[history.size() - 1 - k], item}] / (k + 1);
    }
    return score / std::sqrt(pop_[item] + 5);
  }
  double popularity(int32_t item) { return pop_[item]; }

 private:
  std::map<std::pair<int32_t, int32_t>, double> co_;
  std::map<int32_t, double> pop_;
};

Sequences RandomSequences(Random& random, int32_t users, int32_t items) {
  Sequences sequences(users);
  for (std::vector<int32_t>& sequence : sequences) {
    for (uint64_t n = random.Below(15); n > 0; --n) sequence.push_back(static_cast<int32_t>(random.Below(items)));
  }
  return sequences;
}

Sequences TrainingPart(Sequences sequences) {
  for (std::vector<int32_t>& sequence : sequences) sequence.resize(std::max<size_t>(sequence.size(), 2) - 2);
  return sequences;
}

TEST(CooccurrenceTest, ScoresOfASmallExampleAreTheOnesByHand) {
  // Training events: 0 1 2 and 0 1. pop = 2, 2, 1, 0. co[0][1] = 2, co[1][0] = 1, co[0][2] = 1/2, co[2][0] = 1/4,
  // co[1][2] = 1, co[2][1] = 1/2.
  const auto rule = Cooccurrence::FromDataset(*MakeDataset({{0, 1, 2, 3, 3}, {0, 1, 3, 3}}, 4));
  const std::vector<float> scores = rule->Score({0, 2}, {0, 1, 2, 3});
  EXPECT_FLOAT_EQ(scores[0], 0.25f / std::sqrt(7.0f));
  EXPECT_FLOAT_EQ(scores[1], (0.5f + 2.0f / 2) / std::sqrt(7.0f));
  EXPECT_FLOAT_EQ(scores[2], (0.5f / 2) / std::sqrt(6.0f));
  EXPECT_EQ(scores[3], 0);
  EXPECT_EQ(rule->popularity(1), 2);
  EXPECT_THAT(rule->Recommend({0, 2}, {}, 3), ElementsAre(1, 2, 0));
  EXPECT_THAT(rule->Recommend({0, 2}, {1, 0}, 9), ElementsAre(2, 3)) << "filled up, and no more than there is";
  EXPECT_THAT(rule->Recommend({}, {}, 4), ElementsAre(0, 1, 2, 3)) << "popularity, then number";
  EXPECT_TRUE(rule->Recommend({0}, {}, 0).empty());
}

TEST(CooccurrenceTest, RandomHistoriesScoreAsTheSlowRuleSays) {
  Random random(11);
  for (int round = 0; round < 20; ++round) {
    const int32_t items = 5 + static_cast<int32_t>(random.Below(40));
    const Sequences sequences = RandomSequences(random, 40, items);
    const auto rule = Cooccurrence::FromDataset(*MakeDataset(sequences, items));
    SlowRule slow(TrainingPart(sequences));
    std::vector<int32_t> all(items);
    for (int32_t item = 0; item < items; ++item) all[item] = item;
    for (const std::vector<int32_t>& history : RandomSequences(random, 20, items)) {
      const std::vector<float> scores = rule->Score(history, all);
      std::vector<std::tuple<double, double, int32_t>> order;
      for (const int32_t item : all) {
        EXPECT_NEAR(scores[item], slow.Score(history, item), 1e-6);
        const bool seen = std::count(history.begin(), history.end(), item) > 0;
        // Rounded, so that exact ties stay ties in this other order of summation.
        const double score = std::round(slow.Score(history, item) * 1e9) / 1e9;
        if (!seen) order.emplace_back(-score, score > 0 ? 0 : -slow.popularity(item), item);
      }
      std::sort(order.begin(), order.end());
      std::vector<int32_t> want;
      for (size_t i = 0; i < 10 && i < order.size(); ++i) want.push_back(std::get<2>(order[i]));
      EXPECT_EQ(rule->Recommend(history, history, 10), want);
    }
  }
}

TEST(CooccurrenceTest, TheRankOfAnItemIsItsPlaceInTheWholeList) {
  Random random(8);
  Sequences sequences(20);
  for (auto& sequence : sequences) {
    for (int i = 0; i < 8; ++i) sequence.push_back(static_cast<int32_t>(random.Below(25)));
  }
  const auto rule = Cooccurrence::FromDataset(*MakeDataset(sequences, 40));  // items 25 to 39 were never seen
  for (int n = 0; n < 30; ++n) {
    std::vector<int32_t> history, exclude;
    for (int i = 0; i < 3; ++i) history.push_back(static_cast<int32_t>(random.Below(40)));
    for (int i = 0; i < 4; ++i) exclude.push_back(static_cast<int32_t>(random.Below(40)));
    const std::vector<int32_t> all = rule->Recommend(history, exclude, 40);
    for (int32_t item = 0; item < 40; ++item) {
      const auto place = std::find(all.begin(), all.end(), item);
      const int32_t want = place == all.end() ? 0 : static_cast<int32_t>(place - all.begin()) + 1;
      EXPECT_EQ(rule->RankOf(history, exclude, item), want) << item;
    }
  }
}

TEST(CooccurrenceTest, LeaveOneOutIsTheRuleWithoutThatUser) {
  Random random(12);
  for (int round = 0; round < 20; ++round) {
    const int32_t items = 4 + static_cast<int32_t>(random.Below(20));
    const Sequences sequences = RandomSequences(random, 25, items);
    const auto dataset = MakeDataset(sequences, items);
    const auto rule = Cooccurrence::FromDataset(*dataset);
    std::vector<int32_t> all(items);
    for (int32_t item = 0; item < items; ++item) all[item] = item;
    for (int32_t user = 0; user < 25; ++user) {
      Sequences others = sequences;
      others[user].clear();
      const auto without = Cooccurrence::FromDataset(*MakeDataset(others, items));
      const std::vector<int32_t> own = dataset->TrainingEvents(user);
      for (size_t position = 1; position < sequences[user].size(); ++position) {
        const absl::Span<const int32_t> history = absl::MakeConstSpan(sequences[user]).subspan(0, position);
        // Equal to the last bit: the counts are whole numbers.
        EXPECT_EQ(rule->ScoreLeaveOneOut(history, all, own), without->Score(history, all));
      }
    }
  }
}

TEST(CooccurrenceTest, ThreadsMayShareOneRule) {
  Random random(13);
  const Sequences sequences = RandomSequences(random, 200, 50);
  const auto rule = Cooccurrence::FromDataset(*MakeDataset(sequences, 50));
  std::vector<std::vector<int32_t>> want;
  for (const auto& history : sequences) want.push_back(rule->Recommend(history, history, 10));
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (size_t i = 0; i < sequences.size(); ++i) {
        EXPECT_EQ(rule->Recommend(sequences[i], sequences[i], 10), want[i]);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(CooccurrenceDeathTest, ItemsOutsideTheCatalogAreACallersBug) {
  const auto rule = Cooccurrence::FromDataset(*MakeDataset({{0, 1, 2, 3, 3}}, 4));
  EXPECT_DEATH(rule->Score({4}, {0}), "want an item in \\[0, 4\\), got 4");
  EXPECT_DEATH(rule->Score({0}, {-1}), "got -1");
}

// The figures that the data's README gives for the rule, on all users.
class BeautyTest : public ::testing::TestWithParam<std::tuple<const char*, double, double>> {};

TEST_P(BeautyTest, TheRuleReachesThePublishedFigures) {
  const auto& [file, want_hit_rate, want_ndcg] = GetParam();
  std::string path = absl::StrCat(SLUICE_SOURCE_DIR, "/../shared/data/beauty/", file);
  if (!PathExists(path)) path = absl::StrCat(SLUICE_SOURCE_DIR, "/../../shared/data/beauty/", file);
  if (!PathExists(path)) GTEST_SKIP() << "no ../shared/data/beauty/" << file << " beside the source";
  const auto text = ReadFile(path);
  ASSERT_TRUE(text.ok()) << text.status();
  Sequences sequences;
  int32_t items = 0;
  const nlohmann::json users = nlohmann::json::parse(*text);
  for (const auto& [user, list] : users.items()) {
    sequences.push_back(list.get<std::vector<int32_t>>());
    for (const int32_t item : sequences.back()) items = std::max(items, item + 1);
  }
  ASSERT_EQ(sequences.size(), 22363);
  ASSERT_EQ(items, 12101);
  const auto rule = Cooccurrence::FromDataset(*MakeDataset(sequences, items));
  double hits = 0;
  double ndcg = 0;
  for (const std::vector<int32_t>& sequence : sequences) {
    const absl::Span<const int32_t> history = absl::MakeConstSpan(sequence).subspan(0, sequence.size() - 1);
    const std::vector<int32_t> list = rule->Recommend(history, history, 10);
    const auto found = std::find(list.begin(), list.end(), sequence.back());
    if (found == list.end()) continue;
    hits += 1;
    ndcg += 1 / std::log2(static_cast<double>(found - list.begin()) + 2);
  }
  EXPECT_NEAR(hits / static_cast<double>(sequences.size()), want_hit_rate, 5e-5);
  EXPECT_NEAR(ndcg / static_cast<double>(sequences.size()), want_ndcg, 5e-5);
}

INSTANTIATE_TEST_SUITE_P(Orders, BeautyTest,
                         ::testing::Values(std::tuple("inter_std.json", .0789, .0497),
                                           std::tuple("inter.json", .0740, .0447)));

}  // namespace
}  // namespace sluice
