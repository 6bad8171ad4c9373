#include "common/catalog/market_truth.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "common/catalog/dataset.h"
#include "common/file/file.h"
#include "common/random/random.h"

namespace sluice {
namespace {

// Five users, 30 items in six cells, three dimensions.
MarketTruth::Contents RandomContents() {
  Random random(3);
  MarketTruth::Contents contents;
  contents.dim = 3;
  contents.regions = 3;
  contents.cells = 6;
  contents.seed = 99;
  for (int i = 0; i < 30 * 3; ++i) contents.item_vectors.push_back(static_cast<float>(random.Normal()));
  for (int i = 0; i < 5 * 3; ++i) contents.user_vectors.push_back(static_cast<float>(2 * random.Normal()));
  contents.user_region = {0, 1, 2, 1, 0};
  for (int i = 0; i < 30; ++i) {
    contents.item_cell.push_back(i % 6);
    contents.log_popularity.push_back(static_cast<float>(-std::log(i + 1.0)));
  }
  return contents;
}

double SlowUtility(const MarketTruth::Contents& c, int user, int item) {
  double sum = 0;
  for (int d = 0; d < c.dim; ++d) sum += double{c.user_vectors[user * c.dim + d]} * c.item_vectors[item * c.dim + d];
  return sum;
}

std::string TestFolder() {
  const std::string folder = JoinPath(
      testing::TempDir(), std::string("truth_") + testing::UnitTest::GetInstance()->current_test_info()->name());
  EXPECT_TRUE(RemoveAll(folder).ok());
  return folder;
}

TEST(MarketTruthTest, ValueOfAListIsItsShareOfTheSoftmaxOverAllItems) {
  const MarketTruth::Contents contents = RandomContents();
  const auto truth = MarketTruth::Create(contents).value();
  const std::vector<int32_t> list = {4, 0, 29, 11};
  for (int user = 0; user < 5; ++user) {
    double total = 0, of_list = 0, utility = 0;
    for (int item = 0; item < 30; ++item) total += std::exp(SlowUtility(contents, user, item));
    for (const int item : list) {
      of_list += std::exp(SlowUtility(contents, user, item));
      utility += SlowUtility(contents, user, item) / 4;
    }
    EXPECT_NEAR(truth->ValueOf(user, list).mass, of_list / total, 1e-12);
    EXPECT_NEAR(truth->ValueOf(user, list).utility, utility, 1e-12);
    EXPECT_EQ(truth->ValueOf(user, {}).mass, 0);
    EXPECT_EQ(truth->ValueOf(user, {}).utility, 0);
    std::vector<int32_t> all(30);
    for (int item = 0; item < 30; ++item) all[item] = item;
    EXPECT_NEAR(truth->ValueOf(user, all).mass, 1, 1e-12);
  }
}

TEST(MarketTruthTest, TopItemsAreTheFirstOfTheSortedCatalog) {
  const MarketTruth::Contents contents = RandomContents();
  const auto truth = MarketTruth::Create(contents).value();
  for (const double weight : {0.0, 1.0}) {
    std::vector<std::pair<double, int32_t>> order;
    for (int item = 0; item < 30; ++item) {
      order.emplace_back(-(SlowUtility(contents, 2, item) + weight * contents.log_popularity[item]), item);
    }
    std::sort(order.begin(), order.end());
    const std::vector<int32_t> top = truth->TopItems(2, 7, weight);
    ASSERT_EQ(top.size(), 7u);
    for (size_t i = 0; i < top.size(); ++i) EXPECT_EQ(top[i], order[i].second);
  }
  EXPECT_EQ(truth->TopItems(2, 100, 0).size(), 30u);
  // No other list of ten holds more mass.
  const double best = truth->ValueOf(1, truth->TopItems(1, 10, 0)).mass;
  Random random(1);
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<int32_t> list(30);
    for (int item = 0; item < 30; ++item) list[item] = item;
    for (size_t i = 0; i < 10; ++i) std::swap(list[i], list[i + random.Below(30 - i)]);
    EXPECT_LE(truth->ValueOf(1, absl::MakeConstSpan(list).first(10)).mass, best + 1e-12);
  }
}

TEST(MarketTruthTest, RegionsBelowTheBadOnesAreUnreliable) {
  const auto truth = MarketTruth::Create(RandomContents()).value();
  const auto reliable = [&](int bad) {
    std::vector<bool> users;
    for (int user = 0; user < 5; ++user) users.push_back(truth->Reliable(user, bad));
    return users;
  };
  EXPECT_THAT(reliable(0), testing::ElementsAre(true, true, true, true, true));
  EXPECT_THAT(reliable(1), testing::ElementsAre(false, true, true, true, false));
  EXPECT_THAT(reliable(2), testing::ElementsAre(false, false, true, false, false));
  EXPECT_THAT(reliable(3), testing::ElementsAre(false, false, false, false, false));
}

TEST(MarketTruthTest, EqualPopularitiesHaveNoDeviationToStandardiseBy) {
  MarketTruth::Contents contents = RandomContents();
  std::fill(contents.log_popularity.begin(), contents.log_popularity.end(), -3.1f);
  const auto truth = MarketTruth::Create(contents).value();
  EXPECT_EQ(truth->StandardLogPopularity(4), 0);
}

TEST(MarketTruthTest, ReadsBackWhatItWrote) {
  const std::string folder = TestFolder();
  const MarketTruth::Contents contents = RandomContents();
  ASSERT_TRUE(MarketTruth::Create(contents).value()->Write(folder).ok());
  const auto truth = MarketTruth::Load(folder);
  ASSERT_TRUE(truth.ok()) << truth.status();
  const MarketTruth::Contents& read = (*truth)->contents();
  EXPECT_EQ(read.item_vectors, contents.item_vectors);
  EXPECT_EQ(read.user_vectors, contents.user_vectors);
  EXPECT_EQ(read.user_region, contents.user_region);
  EXPECT_EQ(read.item_cell, contents.item_cell);
  EXPECT_EQ(read.log_popularity, contents.log_popularity);
  EXPECT_EQ(read.seed, 99u);
  EXPECT_EQ(read.regions, 3);
}

TEST(MarketTruthTest, RefusesOtherFormatsByName) {
  const std::string folder = TestFolder();
  EXPECT_EQ(MarketTruth::Load(folder).status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(MarketTruth::Create(RandomContents()).value()->Write(folder).ok());
  const std::string head = JoinPath(folder, "truth.json");
  const std::string text = ReadFile(head).value();
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string changed = text;
    changed.replace(changed.find(from), from.size(), to);
    EXPECT_TRUE(WriteFileAtomically(head, changed).ok());
    return MarketTruth::Load(folder).status().code();
  };
  EXPECT_EQ(with("\"format_version\": 1", "\"format_version\": 2"), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(with("sluice-market-truth", "sluice-market-myths"), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(with("\"dim\": 3", "\"dim\": 4"), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(with("\"dim\"", "\"dam\""), absl::StatusCode::kDataLoss);
  EXPECT_EQ(with("{", "["), absl::StatusCode::kDataLoss);
}

TEST(MarketTruthTest, RefusesContradictions) {
  const auto refused = [](void (*change)(MarketTruth::Contents*), const char* word) {
    MarketTruth::Contents contents = RandomContents();
    change(&contents);
    const absl::Status status = MarketTruth::Create(contents).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << word;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr(word));
  };
  refused([](MarketTruth::Contents* c) { c->item_vectors.pop_back(); }, "item vectors");
  refused([](MarketTruth::Contents* c) { c->user_vectors.pop_back(); }, "user vectors");
  refused([](MarketTruth::Contents* c) { c->log_popularity.pop_back(); }, "log popularities");
  refused([](MarketTruth::Contents* c) { c->user_vectors[4] = std::numeric_limits<float>::quiet_NaN(); }, "number 4");
  refused([](MarketTruth::Contents* c) { c->log_popularity[2] = -std::numeric_limits<float>::infinity(); }, "number 2");
  refused([](MarketTruth::Contents* c) { c->user_region[1] = 3; }, "the region of user 1 is 3");
  refused([](MarketTruth::Contents* c) { c->item_cell[7] = -1; }, "the cell of item 7 is -1");
  refused([](MarketTruth::Contents* c) { c->cells = 7; }, "cell 6 has no item");
  refused([](MarketTruth::Contents* c) { c->dim = 0; }, "dimensions");
}

Dataset::Contents WithTruth(int users, int items) {
  MarketTruth::Contents truth;
  truth.dim = 1;
  truth.regions = 2;
  truth.cells = 1;
  truth.item_vectors.assign(items, 1);
  truth.user_vectors.assign(users, 1);
  truth.user_region.assign(users, 0);
  truth.item_cell.assign(items, 0);
  truth.log_popularity.assign(items, -1);
  Dataset::Contents contents;
  contents.name = "t";
  contents.levels = 1;
  contents.codes = 4;
  contents.item_codes = {0, 1, 2, 3};
  contents.item_names = {"0", "1", "2", "3"};
  contents.user_names = {"a"};
  contents.first_event = {0, 4};
  contents.event_item = {0, 1, 2, 3};
  contents.event_split = {SplitLabel::kContext, SplitLabel::kReserved, SplitLabel::kValidation, SplitLabel::kTest};
  contents.truth = MarketTruth::Create(truth).value();
  return contents;
}

TEST(MarketTruthTest, TravelsWithItsDataSetUnderDigests) {
  const std::string folder = TestFolder();
  ASSERT_TRUE(Dataset::Write(folder, WithTruth(1, 4)).ok());
  const auto dataset = Dataset::Load(folder);
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  ASSERT_NE((*dataset)->truth(), nullptr);
  EXPECT_EQ((*dataset)->truth()->num_items(), 4);
  EXPECT_TRUE((*dataset)->TrainingEvents(0).empty());
  EXPECT_EQ((*dataset)->Examples(SplitLabel::kReserved).size(), 1u);

  const std::string vectors = JoinPath(folder, "truth/item_vectors.npy");
  std::string bytes = ReadFile(vectors).value();
  bytes.back() ^= 1;
  ASSERT_TRUE(WriteFileAtomically(vectors, bytes).ok());
  const absl::Status damaged = Dataset::Load(folder).status();
  EXPECT_EQ(damaged.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(damaged.message()), testing::HasSubstr("item_vectors.npy"));
}

TEST(MarketTruthTest, OfOtherSizesIsNoTruthOfADataSet) {
  EXPECT_EQ(Dataset::FromContents(WithTruth(2, 4)).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Dataset::FromContents(WithTruth(1, 5)).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace sluice
