#include "reward_server/ranker/aggregate.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/status/status.h"

namespace sluice::reward {

float AggregateItems(absl::Span<const float> item_scores, ItemAggregation aggregation) {
  SLUICE_CHECK(!item_scores.empty(), "a candidate without items");
  float best = item_scores[0];
  double sum = 0;
  for (const float score : item_scores) {
    if (!std::isfinite(score)) return std::numeric_limits<float>::quiet_NaN();
    best = std::max(best, score);
    sum += score;
  }
  return aggregation == ItemAggregation::kBest ? best
                                               : static_cast<float>(sum / static_cast<double>(item_scores.size()));
}

}  // namespace sluice::reward
