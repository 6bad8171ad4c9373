// What is really true about a generated market: item and user vectors whose product is utility, where each user
// belongs, and how often each item is exposed. A data set that a market made carries one (Dataset::truth()); no
// training code looks at it, only metrics and rankers of known error do.
//
//   utility(user, item)  = user vector . item vector
//   choice probability   = softmax of utility over ALL items: what a user would choose with everything in view
//
// Immutable; thread-safe.
#ifndef SLUICE_COMMON_CATALOG_MARKET_TRUTH_H_
#define SLUICE_COMMON_CATALOG_MARKET_TRUTH_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace sluice {

class MarketTruth {
 public:
  struct Contents {
    int dim = 0;
    int regions = 0;
    int cells = 0;                      // over all regions
    uint64_t seed = 0;                  // of the noise that rankers of known error add
    std::vector<float> item_vectors;    // [items, dim]
    std::vector<float> user_vectors;    // [users, dim]
    std::vector<int32_t> user_region;   // [users], the main region
    std::vector<int32_t> item_cell;     // [items]
    std::vector<float> log_popularity;  // [items], log of the share of the exposures
  };
  // InvalidArgument: sizes that contradict each other or lie outside the bounds, numbers that are not finite, a region
  // or cell out of range, a cell without an item.
  static absl::StatusOr<std::shared_ptr<const MarketTruth>> Create(Contents contents);

  // Reads and writes the files of a folder of its own. Load: NotFound without it, DataLoss or InvalidArgument for a
  // damaged file, FailedPrecondition for another format version. Digests are the data set's matter.
  static absl::StatusOr<std::shared_ptr<const MarketTruth>> Load(const std::string& folder);
  absl::Status Write(const std::string& folder) const;

  int64_t num_items() const { return num_items_; }
  int64_t num_users() const { return static_cast<int64_t>(contents_.user_region.size()); }
  int regions() const { return contents_.regions; }
  int cells() const { return contents_.cells; }
  int dim() const { return contents_.dim; }
  uint64_t seed() const { return contents_.seed; }
  int32_t region(int32_t user) const { return contents_.user_region[user]; }
  int32_t cell(int32_t item) const { return contents_.item_cell[item]; }
  const Contents& contents() const { return contents_; }

  double Utility(int32_t user, int32_t item) const;
  // Utility of the mean vector of the item's cell.
  double CellUtility(int32_t user, int32_t item) const;
  double LogPopularity(int32_t item) const { return contents_.log_popularity[item]; }
  // The same with mean 0 and deviation 1 over the items; 0 if all are alike.
  double StandardLogPopularity(int32_t item) const { return standard_popularity_[item]; }

  // Whether the user's main region is none of the bad ones, which are regions 0 to bad_regions - 1. Regions are drawn
  // alike, so the first ones are as good a choice as any, and a larger set holds every smaller one.
  bool Reliable(int32_t user, int bad_regions) const { return contents_.user_region[user] >= bad_regions; }

  // How good a list is in truth.
  struct ListValue {
    double mass = 0;     // sum of the choice probabilities of its items: the expected hit rate on unbiased targets
    double utility = 0;  // mean true utility of its items; 0 for an empty list
  };
  // `items` without duplicates. Costs a pass over the catalog: num_items() * dim() products.
  ListValue ValueOf(int32_t user, absl::Span<const int32_t> items) const;
  // Exact metrics over larger catalogs would take longer than decoding does.
  static constexpr int64_t kMaxExactProducts = int64_t{1} << 26;
  bool exact_metrics() const { return num_items_ * contents_.dim <= kMaxExactProducts; }

  // The `count` items of highest utility + popularity_weight * log popularity, best first; ties by item number.
  // With weight 0 the best list there is; with 1 the best for the logged choices.
  std::vector<int32_t> TopItems(int32_t user, int count, double popularity_weight) const;

 private:
  MarketTruth() = default;
  double Product(int32_t user, const float* vector) const;

  Contents contents_;
  int64_t num_items_ = 0;
  std::vector<float> cell_vectors_;  // [cells, dim]
  std::vector<double> standard_popularity_;
};

}  // namespace sluice

#endif  // SLUICE_COMMON_CATALOG_MARKET_TRUTH_H_
