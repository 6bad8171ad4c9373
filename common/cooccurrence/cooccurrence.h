// The co-occurrence rule: a recommender without learning, used as a baseline and as a ranker.
//
// Over every user's training events, item a followed by item b at distance d <= 4 adds 1/d to co[a][b] and .5/d
// to co[b][a]. score(j) = sum over the last 10 history items, k = 0 the newest, of co[i][j] / (k + 1) /
// sqrt(pop[j] + 5). pop counts training events. Sparse, CSR by history item. Immutable; thread-safe.
#ifndef SLUICE_COMMON_COOCCURRENCE_COOCCURRENCE_H_
#define SLUICE_COMMON_COOCCURRENCE_COOCCURRENCE_H_

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/types/span.h"
#include "common/catalog/dataset.h"

namespace sluice {

class Cooccurrence {
 public:
  static std::shared_ptr<const Cooccurrence> FromDataset(const Dataset& dataset);

  // Scores of `items` given a history (item ids, oldest first). Ids must be inside the catalog (checked).
  std::vector<float> Score(absl::Span<const int32_t> history, absl::Span<const int32_t> items) const;

  // The same with one user's own events taken out of the counts: without that the rule has memorised the logged
  // target of a training prompt and its score measures memory. `own_events`: that user's training events.
  std::vector<float> ScoreLeaveOneOut(absl::Span<const int32_t> history, absl::Span<const int32_t> items,
                                      absl::Span<const int32_t> own_events) const;

  // The first `count` items by score, items of `exclude` left out, ties by item number, filled up by
  // popularity (then item number).
  std::vector<int32_t> Recommend(absl::Span<const int32_t> history, absl::Span<const int32_t> exclude, int count) const;

  // The place, from 1, that Recommend would give `item` in a list of everything; 0 if `exclude` holds it.
  int32_t RankOf(absl::Span<const int32_t> history, absl::Span<const int32_t> exclude, int32_t item) const;

  int32_t popularity(int32_t item) const { return popularity_[item]; }
  int64_t num_items() const { return static_cast<int64_t>(popularity_.size()); }

 private:
  Cooccurrence() = default;
  // (-score, item) of every item that shares a count with the history and is not in `taken`, in no order. Sorted, it is
  // the head of Recommend's list.
  std::vector<std::pair<double, int32_t>> Touched(absl::Span<const int32_t> history,
                                                  const absl::flat_hash_set<int32_t>& taken) const;
  // co[row][item] in 24ths, 0 where they never met.
  int32_t Units(int32_t row, int32_t item) const;

  std::vector<int64_t> first_pair_;  // [items + 1]
  std::vector<int32_t> pair_item_;   // ascending within a row
  std::vector<int32_t> pair_units_;  // co in 24ths: 1/d and .5/d are whole there, so counts add up and subtract exactly
  std::vector<int32_t> popularity_;
  std::vector<double> item_factor_;  // 1 / 24 / sqrt(pop + 5)
  std::vector<int32_t> by_popularity_;
};

}  // namespace sluice

#endif  // SLUICE_COMMON_COOCCURRENCE_COOCCURRENCE_H_
