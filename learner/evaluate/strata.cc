#include "learner/evaluate/strata.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/status/status.h"

namespace sluice::learner {
namespace {

constexpr int kTenths = 10;
// Upper ends of the history strata; the last one is open.
constexpr std::array<int, 6> kHistoryEnds = {2, 5, 10, 20, 50, 100};

std::string HistoryStratum(int32_t events) {
  int first = 1;
  for (const int end : kHistoryEnds) {
    if (events <= end) return absl::StrFormat("history/%03d-%03d", first, end);
    first = end + 1;
  }
  return absl::StrFormat("history/%03d+", first);
}

struct Members {
  std::vector<size_t> rows;
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();

  void Add(size_t row, double key) {
    rows.push_back(row);
    low = std::min(low, key);
    high = std::max(high, key);
  }
};

}  // namespace

std::vector<int> Deciles(absl::Span<const double> keys) {
  std::vector<size_t> order(keys.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return keys[a] < keys[b]; });
  std::vector<int> tenths(keys.size());
  for (size_t first = 0; first < order.size();) {
    size_t end = first;
    while (end < order.size() && keys[order[end]] == keys[order[first]]) ++end;
    // The middle place of the equal ones, in halves of a place from 0.
    const size_t middle = first + end;
    const int tenth = static_cast<int>(middle * kTenths / (2 * order.size())) + 1;
    for (; first < end; ++first) tenths[order[first]] = std::min(tenth, kTenths);
  }
  return tenths;
}

std::map<std::string, std::map<std::string, double>> Stratify(const OutcomeTable& table) {
  std::vector<double> ranks, popularities;
  for (const OutcomeRow& row : table.rows) {
    // A target that may not be recommended is beyond every rank.
    ranks.push_back(row.rule_rank > 0 ? row.rule_rank : std::numeric_limits<int32_t>::max());
    popularities.push_back(-row.popularity);
  }
  const std::vector<int> difficulty = Deciles(ranks), popularity = Deciles(popularities);
  std::map<std::string, Members> strata;
  for (size_t i = 0; i < table.rows.size(); ++i) {
    strata[absl::StrFormat("difficulty_decile/%02d", difficulty[i])].Add(i, ranks[i]);
    strata[absl::StrFormat("popularity_decile/%02d", popularity[i])].Add(i, table.rows[i].popularity);
    strata[HistoryStratum(table.rows[i].history)].Add(i, table.rows[i].history);
  }

  std::map<std::string, std::map<std::string, double>> means;
  for (const auto& [name, members] : strata) {
    means[name] = {
        {"prompts", static_cast<double>(members.rows.size())}, {"key_low", members.low}, {"key_high", members.high}};
  }
  for (const int cutoff : kCutoffs) {
    if (cutoff > table.setting.beams) continue;
    for (const char* family : {"hr", "ndcg", "mrr"}) {
      const std::string metric = absl::StrCat(family, "@", cutoff);
      const absl::StatusOr<std::vector<double>> values = ValuesOf(table, metric);
      SLUICE_CHECK(values.ok(), metric);
      for (const auto& [name, members] : strata) {
        double sum = 0;
        for (const size_t row : members.rows) sum += (*values)[row];
        means[name][metric] = sum / static_cast<double>(members.rows.size());
      }
    }
  }
  return means;
}

}  // namespace sluice::learner
