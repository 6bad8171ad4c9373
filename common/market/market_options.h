// Sizes and shape of a generated market. Defaults are the ones of the published bench of docs/market.md.
#ifndef SLUICE_COMMON_MARKET_MARKET_OPTIONS_H_
#define SLUICE_COMMON_MARKET_MARKET_OPTIONS_H_

#include <cstdint>

namespace sluice {

inline constexpr int64_t kMaxMarketItems = int64_t{1} << 27;
inline constexpr int64_t kMaxMarketUsers = int64_t{1} << 28;

struct MarketOptions {
  // The catalog: regions * cells * items_per_cell items.
  int regions = 16;
  int cells = 16;  // of a region
  int items_per_cell = 8;
  int leaf_codes = 16;  // codes of the last level, of which a cell uses items_per_cell

  // An item's vector: normalise(region + cell_weight * cell + item_weight * own), each a random direction.
  int dim = 16;
  double cell_weight = 0.8;
  double item_weight = 0.7;
  double popularity_exponent = 0.7;

  // A user's: utility_scale * normalise(region + second_weight * second region + own_weight * own).
  double utility_scale = 10;
  double second_weight = 0.5;
  double own_weight = 0.9;

  // A logged choice.
  int slate = 100;
  double position_bias = 0;

  int history = 10;  // choices of a user before the targets
  int sft_users = 10'000;
  int rl_users = 12'800;
  int heldout_users = 2'000;

  int64_t num_items() const { return int64_t{regions} * cells * items_per_cell; }
  int64_t num_users() const { return int64_t{sft_users} + rl_users + heldout_users; }
  bool operator==(const MarketOptions&) const = default;
};

}  // namespace sluice

#endif  // SLUICE_COMMON_MARKET_MARKET_OPTIONS_H_
