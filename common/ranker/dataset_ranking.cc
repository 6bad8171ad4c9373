#include "common/ranker/dataset_ranking.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/status/status.h"

namespace sluice {

std::vector<std::vector<int32_t>> TrainingSequences(const Dataset& dataset) {
  std::vector<std::vector<int32_t>> sequences;
  sequences.reserve(static_cast<size_t>(dataset.num_users()));
  for (int32_t user = 0; user < dataset.num_users(); ++user) sequences.push_back(dataset.TrainingEvents(user));
  return sequences;
}

absl::StatusOr<double> SequentialHitRate(const SequentialRanker& ranker, const Dataset& dataset,
                                         absl::Span<const Example> examples, int cutoff) {
  if (examples.empty()) return absl::InvalidArgumentError("want at least one example to evaluate the ranker on");
  if (ranker.config().num_items != dataset.num_items()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the ranker has ", ranker.config().num_items, " items, the data set ", dataset.num_items()));
  }
  constexpr size_t kRows = 256;  // 12,000 items: 12 MB of scores at a time
  int64_t hits = 0;
  for (size_t first = 0; first < examples.size(); first += kRows) {
    const size_t count = std::min(kRows, examples.size() - first);
    std::vector<std::vector<int32_t>> histories;
    for (size_t i = 0; i < count; ++i) {
      const absl::Span<const int32_t> history = dataset.History(examples[first + i]);
      histories.emplace_back(history.begin(), history.end());
    }
    SLUICE_ASSIGN_OR_RETURN(const at::Tensor scores, ranker.ScoreAll(histories));
    for (size_t i = 0; i < count; ++i) {
      const float* row = scores.data_ptr<float>() + static_cast<int64_t>(i) * dataset.num_items();
      const int32_t target = dataset.Target(examples[first + i]);
      // Items at or above the target, less itself and what the user had.
      int64_t above = std::count_if(row, row + dataset.num_items(), [&](float s) { return s >= row[target]; }) - 1;
      std::vector<int32_t> seen = histories[i];
      std::sort(seen.begin(), seen.end());
      seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
      for (const int32_t item : seen) above -= item != target && row[item] >= row[target] ? 1 : 0;
      hits += above < cutoff ? 1 : 0;
    }
  }
  return static_cast<double>(hits) / static_cast<double>(examples.size());
}

}  // namespace sluice
