#include "common/market/market.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace sluice {
namespace {

MarketOptions SmallOptions() {
  MarketOptions options;
  options.regions = 4;
  options.cells = 3;
  options.items_per_cell = 5;
  options.leaf_codes = 8;
  options.dim = 6;
  options.slate = 12;
  options.history = 4;
  options.sft_users = 40;
  options.rl_users = 25;
  options.heldout_users = 15;
  return options;
}

absl::Status KeepGoing() { return absl::OkStatus(); }

Dataset::Contents Generate(const MarketOptions& options, uint64_t seed) {
  return GenerateMarket(options, seed, "market", options.history, KeepGoing).value();
}

double Dot(absl::Span<const float> a, absl::Span<const float> b) {
  double sum = 0;
  for (size_t d = 0; d < a.size(); ++d) sum += static_cast<double>(a[d]) * static_cast<double>(b[d]);
  return sum;
}

TEST(MarketTest, RepeatsEveryByteForASeedAndDiffersForAnother) {
  const Dataset::Contents a = Generate(SmallOptions(), 7), b = Generate(SmallOptions(), 7);
  EXPECT_EQ(a.event_item, b.event_item);
  EXPECT_EQ(a.item_codes, b.item_codes);
  EXPECT_EQ(a.truth->contents().item_vectors, b.truth->contents().item_vectors);
  EXPECT_EQ(a.truth->contents().user_vectors, b.truth->contents().user_vectors);
  EXPECT_EQ(a.truth->contents().log_popularity, b.truth->contents().log_popularity);
  const Dataset::Contents c = Generate(SmallOptions(), 8);
  EXPECT_NE(a.event_item, c.event_item);
  EXPECT_NE(a.truth->contents().item_vectors, c.truth->contents().item_vectors);
}

TEST(MarketTest, AUserDoesNotDependOnHowManyThereAre) {
  MarketOptions more = SmallOptions();
  more.sft_users = 400;
  const Dataset::Contents few = Generate(SmallOptions(), 7), many = Generate(more, 7);
  const size_t events = 40 * 5;
  EXPECT_TRUE(std::equal(few.event_item.begin(), few.event_item.begin() + events, many.event_item.begin()));
}

TEST(MarketTest, SemanticIdsAreUniqueAndSomeLeavesAreInvalid) {
  const MarketOptions options = SmallOptions();
  const auto dataset = Dataset::FromContents(Generate(options, 3)).value();
  const Trie& trie = dataset->trie();
  EXPECT_EQ(trie.num_leaves(), options.num_items());
  EXPECT_EQ(trie.max_fanout(0), 4);
  EXPECT_EQ(trie.max_fanout(1), 3);
  EXPECT_EQ(trie.max_fanout(2), 5);  // of 8 codes: three of eight leaves of every cell are invalid
  EXPECT_EQ(dataset->vocabulary().codes, 8);
  std::set<int32_t> last_codes;
  for (int32_t item = 0; item < dataset->num_items(); ++item) {
    last_codes.insert(trie.TokensOfLeaf(trie.LeafOfItem(item))[2]);
  }
  EXPECT_EQ(last_codes.size(), 8u) << "each cell draws its own codes";
}

TEST(MarketTest, VectorsHaveTheirLengthAndCellsHoldTogether) {
  const auto market = Market::Create(SmallOptions(), 5).value();
  double same_cell = 0, same_region = 0, other = 0;
  int same_cells = 0, same_regions = 0, others = 0;
  for (int32_t a = 0; a < market->num_items(); ++a) {
    EXPECT_NEAR(Dot(market->ItemVector(a), market->ItemVector(a)), 1, 1e-6);
    for (int32_t b = 0; b < a; ++b) {
      const double cosine = Dot(market->ItemVector(a), market->ItemVector(b));
      if (market->CellOf(a) == market->CellOf(b)) {
        same_cell += cosine, ++same_cells;
      } else if (market->RegionOf(a) == market->RegionOf(b)) {
        same_region += cosine, ++same_regions;
      } else {
        other += cosine, ++others;
      }
    }
  }
  // (1 + .64) / (1 + .64 + .49) = .77 in a cell and 1 / 2.13 = .47 in a region, on average over directions.
  EXPECT_NEAR(same_cell / same_cells, 0.77, 0.1);
  EXPECT_NEAR(same_region / same_regions, 0.47, 0.15);
  EXPECT_LT(other / others, 0.3);
  for (int user = 0; user < 20; ++user) {
    const Market::User made = market->MakeUser(user);
    EXPECT_NEAR(Dot(made.vector, made.vector), 100, 1e-3);
  }
}

TEST(MarketTest, RegionsOfUsersAreUniform) {
  const auto market = Market::Create(SmallOptions(), 5).value();
  std::vector<double> main(4, 0), second(4, 0);
  for (int user = 0; user < 8000; ++user) {
    const Market::User made = market->MakeUser(user);
    ++main[made.region];
    ++second[made.second_region];
  }
  for (int region = 0; region < 4; ++region) {
    EXPECT_NEAR(main[region] / 8000, 0.25, 4 * std::sqrt(0.25 * 0.75 / 8000));
    EXPECT_NEAR(second[region] / 8000, 0.25, 4 * std::sqrt(0.25 * 0.75 / 8000));
  }
}

TEST(MarketTest, PopularityFollowsItsPowerOfTheRank) {
  MarketOptions options = SmallOptions();
  options.popularity_exponent = 0.9;
  const auto market = Market::Create(options, 5).value();
  std::vector<double> shares;
  for (int32_t item = 0; item < market->num_items(); ++item) shares.push_back(market->popularity(item));
  double total = 0;
  for (const double share : shares) total += share;
  EXPECT_NEAR(total, 1, 1e-12);
  const std::vector<double> in_item_order = shares;
  std::sort(shares.rbegin(), shares.rend());
  for (size_t rank = 1; rank <= shares.size(); ++rank) {
    EXPECT_NEAR(shares[rank - 1] / shares[0], std::pow(static_cast<double>(rank), -0.9), 1e-9);
  }
  EXPECT_NE(in_item_order, shares) << "ranks are in random order of the items";
}

// The slate is one of two places, each drawn by popularity: small enough to sum over all slates.
TEST(MarketTest, LoggedChoicesFollowTheSoftmaxOverSlatesDrawnByPopularity) {
  for (const double position_bias : {0.0, 1.5}) {
    MarketOptions options = SmallOptions();
    options.regions = 2;
    options.cells = 1;
    options.items_per_cell = 3;
    options.leaf_codes = 4;
    options.slate = 2;
    options.utility_scale = 2;
    options.position_bias = position_bias;
    const auto market = Market::Create(options, 11).value();
    const Market::User user = market->MakeUser(0);
    const int items = static_cast<int>(market->num_items());
    std::vector<double> want(items, 0.0);
    for (int a = 0; a < items; ++a) {
      for (int b = 0; b < items; ++b) {
        const double chance = market->popularity(a) * market->popularity(b);
        double weight_a = std::exp(Dot(user.vector, market->ItemVector(a)));
        double weight_b = std::exp(Dot(user.vector, market->ItemVector(b)));
        // The less popular one of the two stands second.
        if (market->popularity(a) < market->popularity(b)) weight_a *= std::pow(2.0, -position_bias);
        if (market->popularity(b) < market->popularity(a)) weight_b *= std::pow(2.0, -position_bias);
        want[a] += chance * weight_a / (weight_a + weight_b);
        want[b] += chance * weight_b / (weight_a + weight_b);
      }
    }
    constexpr int kChoices = 100'000;
    std::vector<double> count(items, 0.0);
    for (const int32_t item : market->Choices(0, user, kChoices)) ++count[item];
    for (int item = 0; item < items; ++item) {
      EXPECT_NEAR(count[item] / kChoices, want[item], 4 * std::sqrt(want[item] * (1 - want[item]) / kChoices))
          << "item " << item << ", position bias " << position_bias;
    }
  }
}

TEST(MarketTest, AChoiceFromASlateFollowsTheSoftmax) {
  const auto market = Market::Create(SmallOptions(), 11).value();
  const Market::User user = market->MakeUser(3);
  const std::vector<int32_t> slate = {4, 17, 17, 59, 30};
  std::vector<double> want;
  double total = 0;
  for (const int32_t item : slate) total += std::exp(Dot(user.vector, market->ItemVector(item)));
  for (const int32_t item : slate) want.push_back(std::exp(Dot(user.vector, market->ItemVector(item))) / total);
  Random random(2);
  constexpr int kChoices = 100'000;
  std::vector<double> count(slate.size(), 0.0);
  for (int i = 0; i < kChoices; ++i) ++count[market->ChooseFrom(slate, user.vector, random)];
  for (size_t place = 0; place < slate.size(); ++place) {
    EXPECT_NEAR(count[place] / kChoices, want[place], 4 * std::sqrt(want[place] * (1 - want[place]) / kChoices) + 1e-9);
  }
}

TEST(MarketTest, PartsOfUsersNeverMix) {
  const MarketOptions options = SmallOptions();
  const auto dataset = Dataset::FromContents(Generate(options, 3)).value();
  EXPECT_EQ(dataset->num_users(), 80);
  EXPECT_EQ(dataset->user_name(0), "sft-0");
  EXPECT_EQ(dataset->user_name(40), "rl-0");
  EXPECT_EQ(dataset->user_name(65), "heldout-0");
  EXPECT_EQ(dataset->Examples(SplitLabel::kTrain).size(), 40u * options.history);
  EXPECT_EQ(dataset->Examples(SplitLabel::kReserved).size(), 25u);
  EXPECT_EQ(dataset->Examples(SplitLabel::kValidation).size(), 15u);
  EXPECT_EQ(dataset->Examples(SplitLabel::kTest).size(), 15u);
  for (int32_t user = 0; user < dataset->num_users(); ++user) {
    EXPECT_EQ(dataset->TrainingEvents(user).size(), user < 40 ? 5u : 0u) << "user " << user;
  }
  for (const Example& example : dataset->Examples(SplitLabel::kReserved)) {
    EXPECT_GE(example.user, 40);
    EXPECT_LT(example.user, 65);
    EXPECT_EQ(dataset->History(example).size(), 4u);
  }
}

TEST(MarketTest, StopsWhenAskedTo) {
  int asked = 0;
  const auto contents = GenerateMarket(SmallOptions(), 1, "market", 4, [&asked] {
    ++asked;
    return absl::CancelledError("enough");
  });
  EXPECT_EQ(contents.status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(asked, 1);
}

TEST(MarketTest, RefusesOptionsThatMakeNoMarket) {
  const auto refused = [](void (*change)(MarketOptions*), const char* word) {
    MarketOptions options = SmallOptions();
    change(&options);
    const absl::Status status = Market::Create(options, 1).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << word;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr(word));
  };
  refused([](MarketOptions* o) { o->leaf_codes = 4; }, "leaf_codes");
  refused([](MarketOptions* o) { o->regions = 1; }, "regions");
  refused([](MarketOptions* o) { o->slate = 0; }, "slate");
  refused([](MarketOptions* o) { o->utility_scale = -1; }, "utility_scale");
  refused([](MarketOptions* o) { o->position_bias = std::nan(""); }, "position_bias");
  refused([](MarketOptions* o) { o->regions = o->cells = 60'000; }, "regions * cells * items_per_cell");
  refused([](MarketOptions* o) { o->sft_users = o->rl_users = 200'000'000; }, "sft_users");
  refused([](MarketOptions* o) { o->heldout_users = 0; }, "heldout_users");
}

// The numbers that the bench's description gives for its market, in another draw of it.
TEST(MarketTest, TheBenchHasTheReferenceValuesOfItsBestLists) {
  MarketOptions options;
  options.sft_users = 1;
  options.rl_users = 0;
  const Dataset::Contents contents = Generate(options, 1);
  const MarketTruth& truth = *contents.truth;
  double mass = 0, exposed_mass = 0, hits = 0, exposed_hits = 0;
  const int users = options.heldout_users;
  for (int32_t user = 1; user <= users; ++user) {
    const std::vector<int32_t> best = truth.TopItems(user, 10, 0), exposed = truth.TopItems(user, 10, 1);
    mass += truth.ValueOf(user, best).mass / users;
    exposed_mass += truth.ValueOf(user, exposed).mass / users;
    for (int i = 0; i < 2; ++i) {
      const int32_t target = contents.event_item[contents.first_event[user + 1] - 1 - i];
      hits += std::count(best.begin(), best.end(), target) / (2.0 * users);
      exposed_hits += std::count(exposed.begin(), exposed.end(), target) / (2.0 * users);
    }
  }
  EXPECT_NEAR(mass, 0.241, 0.03);
  EXPECT_NEAR(hits, 0.159, 0.03);
  EXPECT_NEAR(exposed_mass, 0.164, 0.03);
  EXPECT_NEAR(exposed_hits, 0.316, 0.03);
  RecordProperty("mass", std::to_string(mass));
  RecordProperty("exposed_mass", std::to_string(exposed_mass));
}

}  // namespace
}  // namespace sluice
