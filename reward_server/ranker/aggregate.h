// From scores of items to the score of a candidate: one semantic ID may stand for several items.
#ifndef SLUICE_REWARD_SERVER_RANKER_AGGREGATE_H_
#define SLUICE_REWARD_SERVER_RANKER_AGGREGATE_H_

#include "absl/types/span.h"

namespace sluice::reward {

enum class ItemAggregation {
  kBest,  // the highest score: the system may show any of the items
  kMean,  // their mean: it shows one at random
};

// The score of a candidate from those of its items; at least one. Not finite if one of them is not: a missing number
// never hides behind the others.
float AggregateItems(absl::Span<const float> item_scores, ItemAggregation aggregation);

}  // namespace sluice::reward

#endif  // SLUICE_REWARD_SERVER_RANKER_AGGREGATE_H_
