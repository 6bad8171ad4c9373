// A market whose truth is known: items with vectors and popularity, users with tastes, and the choices that a log
// would hold. Built to test what real logs cannot show: whether a method helps users, or only agrees with the log.
//
//   item     normalise(a[region] + cell_weight b[cell] + item_weight e[item]); a, b, e random directions.
//            Semantic ID: region, cell of the region, one of leaf_codes (drawn without replacement in a cell), so a
//            share of 1 - items_per_cell / leaf_codes of the leaves is invalid.
//   exposure in proportion to rank^-popularity_exponent, ranks in random order: independent of taste.
//   user     utility_scale * normalise(a[region] + second_weight a[second region] + own_weight own direction).
//   choice   a slate of items drawn by exposure with replacement; one of its places is chosen by a softmax over true
//            utility. With position_bias the slate lists popular items first and place p weighs p^-position_bias.
//
// Everything is a pure function of (options, seed); a user is one of (options, seed, user number), so users are made
// one by one, in any number and order, and a choice costs slate * dim products whatever the size of the catalog.
#ifndef SLUICE_COMMON_MARKET_MARKET_H_
#define SLUICE_COMMON_MARKET_MARKET_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/catalog/dataset.h"
#include "common/market/market_options.h"
#include "common/market/popularity_sampler.h"

namespace sluice {

// InvalidArgument names the option and what was wanted.
absl::Status ValidateMarket(const MarketOptions& options);

// Immutable; thread-safe.
class Market {
 public:
  static constexpr int kLevels = 3;

  // InvalidArgument as ValidateMarket.
  static absl::StatusOr<std::unique_ptr<const Market>> Create(const MarketOptions& options, uint64_t seed);

  struct User {
    int32_t region = 0;         // the main one
    int32_t second_region = 0;  // may be the same
    std::vector<float> vector;  // [dim]; utility is its product with an item's
  };
  User MakeUser(int64_t user) const;

  // The user's first `count` logged choices, in time order. A longer list begins with the shorter one.
  std::vector<int32_t> Choices(int64_t user, const User& made, int count) const;

  // One choice from a given slate: the place that is chosen. The slate's order is the order of its places.
  size_t ChooseFrom(absl::Span<const int32_t> slate, absl::Span<const float> taste, Random& random) const;

  int64_t num_items() const { return options_.num_items(); }
  int codes() const;                                                             // of a level
  int32_t CellOf(int32_t item) const { return item / options_.items_per_cell; }  // over all regions
  int32_t RegionOf(int32_t item) const { return CellOf(item) / options_.cells; }
  absl::Span<const float> ItemVector(int32_t item) const;
  double popularity(int32_t item) const { return popularity_[item]; }       // share of the exposures
  const std::vector<int32_t>& item_codes() const { return item_codes_; }    // [items, kLevels]
  const std::vector<float>& item_vectors() const { return item_vectors_; }  // [items, dim]
  const MarketOptions& options() const { return options_; }

 private:
  Market(const MarketOptions& options, uint64_t seed);

  const MarketOptions options_;
  const uint64_t seed_;
  std::vector<float> region_vectors_;  // [regions, dim], of length 1
  std::vector<float> item_vectors_;
  std::vector<double> popularity_;
  std::vector<int32_t> item_codes_;
  std::vector<double> log_place_weight_;  // [slate]; empty without position bias
  std::unique_ptr<const PopularitySampler> exposure_;
};

// The market as a data set, its truth with it. Users come in this order:
//   sft_users      history + 1 choices, all of them training events
//   rl_users       history choices of context, then a target that is reserved for rl
//   heldout_users  history choices of context, then a validation and a test target
// `keep_going` is asked now and then; what it returns, if not OK, is returned.
absl::StatusOr<Dataset::Contents> GenerateMarket(const MarketOptions& options, uint64_t seed, const std::string& name,
                                                 int max_history, const std::function<absl::Status()>& keep_going);

}  // namespace sluice

#endif  // SLUICE_COMMON_MARKET_MARKET_H_
