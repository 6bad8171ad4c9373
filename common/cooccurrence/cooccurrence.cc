#include "common/cooccurrence/cooccurrence.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status/status.h"

namespace sluice {
namespace {

constexpr int kMaxDistance = 4;
constexpr size_t kHistoryItems = 10;
constexpr double kPopularityOffset = 5;
constexpr double kUnitsPerCount = 24;  // least common multiple of 1, 2, 3, 4, doubled for the halves

// What one event adds to co[earlier][later] and to co[later][earlier], by distance.
constexpr int32_t kForwardUnits[kMaxDistance + 1] = {0, 24, 12, 8, 6};
constexpr int32_t kBackwardUnits[kMaxDistance + 1] = {0, 12, 6, 4, 3};

double ItemFactor(int64_t popularity) {
  return 1 / (kUnitsPerCount * std::sqrt(static_cast<double>(popularity) + kPopularityOffset));
}

absl::Span<const int32_t> Newest(absl::Span<const int32_t> history) {
  return history.size() > kHistoryItems ? history.subspan(history.size() - kHistoryItems) : history;
}

void CheckItems(absl::Span<const int32_t> items, int64_t num_items) {
  for (const int32_t item : items) {
    SLUICE_CHECK(item >= 0 && item < num_items, absl::StrCat("want an item in [0, ", num_items, "), got ", item));
  }
}

// Calls add(row, item, units) for everything that a sequence of events adds to the counts.
template <typename Add>
void ForEachPair(absl::Span<const int32_t> events, const Add& add) {
  for (size_t a = 0; a < events.size(); ++a) {
    for (size_t d = 1; d <= kMaxDistance && a + d < events.size(); ++d) {
      add(events[a], events[a + d], kForwardUnits[d]);
      add(events[a + d], events[a], kBackwardUnits[d]);
    }
  }
}

// One user's own part of the counts, looked up by item.
class OwnCounts {
 public:
  explicit OwnCounts(absl::Span<const int32_t> events) : events_(events) {
    for (size_t i = 0; i < events.size(); ++i) places_.emplace_back(events[i], static_cast<int32_t>(i));
    std::sort(places_.begin(), places_.end());
  }

  int32_t Popularity(int32_t item) const {
    const auto [begin, end] = Places(item);
    return static_cast<int32_t>(end - begin);
  }

  // The user's part of co[row][item].
  int32_t Units(int32_t row, int32_t item) const {
    int32_t units = 0;
    const auto [begin, end] = Places(item);
    for (auto place = begin; place != end; ++place) {
      const int32_t at = place->second;
      for (int32_t d = 1; d <= kMaxDistance; ++d) {
        if (at - d >= 0 && events_[at - d] == row) units += kForwardUnits[d];
        if (at + d < static_cast<int32_t>(events_.size()) && events_[at + d] == row) units += kBackwardUnits[d];
      }
    }
    return units;
  }

 private:
  using Place = std::pair<int32_t, int32_t>;  // item, position
  std::pair<std::vector<Place>::const_iterator, std::vector<Place>::const_iterator> Places(int32_t item) const {
    return {std::lower_bound(places_.begin(), places_.end(), Place(item, 0)),
            std::lower_bound(places_.begin(), places_.end(), Place(item + 1, 0))};
  }
  absl::Span<const int32_t> events_;
  std::vector<Place> places_;
};

}  // namespace

std::shared_ptr<const Cooccurrence> Cooccurrence::FromDataset(const Dataset& dataset) {
  const int64_t items = dataset.num_items();
  std::shared_ptr<Cooccurrence> result(new Cooccurrence);
  result->popularity_.assign(items, 0);

  // Twice over the events: room for every pair in its row, then the pairs; rows are sorted and merged after.
  std::vector<int64_t> next(items + 1, 0);
  for (int32_t user = 0; user < dataset.num_users(); ++user) {
    const std::vector<int32_t> events = dataset.TrainingEvents(user);
    for (const int32_t item : events) ++result->popularity_[item];
    ForEachPair(events, [&](int32_t row, int32_t, int32_t) { ++next[row + 1]; });
  }
  std::partial_sum(next.begin(), next.end(), next.begin());
  const std::vector<int64_t> start = next;
  std::vector<std::pair<int32_t, int32_t>> pairs(next.back());  // item, units
  for (int32_t user = 0; user < dataset.num_users(); ++user) {
    ForEachPair(dataset.TrainingEvents(user), [&](int32_t row, int32_t item, int32_t units) {
      pairs[next[row]++] = {item, units};
    });
  }
  result->first_pair_.assign(items + 1, 0);
  for (int64_t row = 0; row < items; ++row) {
    std::sort(pairs.begin() + start[row], pairs.begin() + start[row + 1]);
    for (int64_t at = start[row]; at < start[row + 1];) {
      int64_t units = 0;
      const int32_t item = pairs[at].first;
      for (; at < start[row + 1] && pairs[at].first == item; ++at) units += pairs[at].second;
      result->pair_item_.push_back(item);
      result->pair_units_.push_back(
          static_cast<int32_t>(std::min<int64_t>(units, std::numeric_limits<int32_t>::max())));
    }
    result->first_pair_[row + 1] = static_cast<int64_t>(result->pair_item_.size());
  }
  result->pair_item_.shrink_to_fit();
  result->pair_units_.shrink_to_fit();

  result->item_factor_.resize(items);
  for (int64_t item = 0; item < items; ++item) result->item_factor_[item] = ItemFactor(result->popularity_[item]);
  result->by_popularity_.resize(items);
  std::iota(result->by_popularity_.begin(), result->by_popularity_.end(), 0);
  std::stable_sort(result->by_popularity_.begin(), result->by_popularity_.end(),
                   [&](int32_t a, int32_t b) { return result->popularity_[a] > result->popularity_[b]; });
  return result;
}

int32_t Cooccurrence::Units(int32_t row, int32_t item) const {
  const auto begin = pair_item_.begin() + first_pair_[row];
  const auto end = pair_item_.begin() + first_pair_[row + 1];
  const auto found = std::lower_bound(begin, end, item);
  return found != end && *found == item ? pair_units_[found - pair_item_.begin()] : 0;
}

std::vector<float> Cooccurrence::Score(absl::Span<const int32_t> history, absl::Span<const int32_t> items) const {
  CheckItems(history, num_items());
  CheckItems(items, num_items());
  const absl::Span<const int32_t> newest = Newest(history);
  std::vector<float> scores(items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    double sum = 0;
    for (size_t k = 0; k < newest.size(); ++k) {
      const int32_t units = Units(newest[newest.size() - 1 - k], items[i]);
      sum += static_cast<double>(units) / static_cast<double>(k + 1);
    }
    scores[i] = static_cast<float>(sum * item_factor_[items[i]]);
  }
  return scores;
}

std::vector<float> Cooccurrence::ScoreLeaveOneOut(absl::Span<const int32_t> history, absl::Span<const int32_t> items,
                                                  absl::Span<const int32_t> own_events) const {
  CheckItems(history, num_items());
  CheckItems(items, num_items());
  const absl::Span<const int32_t> newest = Newest(history);
  const OwnCounts own(own_events);
  std::vector<float> scores(items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    const int32_t item = items[i];
    const int32_t own_popularity = own.Popularity(item);
    double sum = 0;
    for (size_t k = 0; k < newest.size(); ++k) {
      const int32_t row = newest[newest.size() - 1 - k];
      // An item that the user never had in training shares no count with the user.
      const int32_t units = Units(row, item) - (own_popularity > 0 ? own.Units(row, item) : 0);
      sum += static_cast<double>(units) / static_cast<double>(k + 1);
    }
    const double factor = own_popularity > 0 ? ItemFactor(popularity_[item] - own_popularity) : item_factor_[item];
    scores[i] = static_cast<float>(sum * factor);
  }
  return scores;
}

std::vector<std::pair<double, int32_t>> Cooccurrence::Touched(absl::Span<const int32_t> history,
                                                              const absl::flat_hash_set<int32_t>& taken) const {
  const absl::Span<const int32_t> newest = Newest(history);
  // One sum an item, kept between calls and put back to 0: a catalog may be far larger than what a history touches.
  thread_local std::vector<double> sums;
  if (sums.size() < popularity_.size()) sums.resize(popularity_.size(), 0);
  std::vector<int32_t> touched;
  for (size_t k = 0; k < newest.size(); ++k) {
    const int32_t row = newest[newest.size() - 1 - k];
    for (int64_t at = first_pair_[row]; at < first_pair_[row + 1]; ++at) {
      double& sum = sums[pair_item_[at]];
      if (sum == 0) touched.push_back(pair_item_[at]);
      sum += static_cast<double>(pair_units_[at]) / static_cast<double>(k + 1);
    }
  }
  std::vector<std::pair<double, int32_t>> ranked;
  for (const int32_t item : touched) {
    if (!taken.contains(item)) ranked.emplace_back(-sums[item] * item_factor_[item], item);
    sums[item] = 0;
  }
  return ranked;
}

int32_t Cooccurrence::RankOf(absl::Span<const int32_t> history, absl::Span<const int32_t> exclude, int32_t item) const {
  CheckItems(history, num_items());
  CheckItems({item}, num_items());
  absl::flat_hash_set<int32_t> taken(exclude.begin(), exclude.end());
  if (taken.contains(item)) return 0;
  const std::vector<std::pair<double, int32_t>> ranked = Touched(history, taken);
  for (const std::pair<double, int32_t>& own : ranked) {
    if (own.second != item) continue;
    return 1 + static_cast<int32_t>(
                   std::count_if(ranked.begin(), ranked.end(), [&own](const auto& other) { return other < own; }));
  }
  // Behind all that share a count with the history, by popularity.
  int32_t rank = static_cast<int32_t>(ranked.size()) + 1;
  for (const std::pair<double, int32_t>& other : ranked) taken.insert(other.second);
  for (const int32_t other : by_popularity_) {
    if (other == item) break;
    if (!taken.contains(other)) ++rank;
  }
  return rank;
}

std::vector<int32_t> Cooccurrence::Recommend(absl::Span<const int32_t> history, absl::Span<const int32_t> exclude,
                                             int count) const {
  CheckItems(history, num_items());
  const size_t wanted = static_cast<size_t>(std::max(count, 0));
  absl::flat_hash_set<int32_t> taken(exclude.begin(), exclude.end());
  std::vector<std::pair<double, int32_t>> ranked = Touched(history, taken);
  const size_t kept = std::min(wanted, ranked.size());
  std::partial_sort(ranked.begin(), ranked.begin() + kept, ranked.end());

  std::vector<int32_t> result;
  for (size_t i = 0; i < kept; ++i) {
    result.push_back(ranked[i].second);
    taken.insert(ranked[i].second);
  }
  for (size_t i = 0; i < by_popularity_.size() && result.size() < wanted; ++i) {
    if (!taken.contains(by_popularity_[i])) result.push_back(by_popularity_[i]);
  }
  return result;
}

}  // namespace sluice
