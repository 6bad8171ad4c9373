// The sequential ranker on a prepared data set: what it is trained on, and how good it is alone.
#ifndef SLUICE_COMMON_RANKER_DATASET_RANKING_H_
#define SLUICE_COMMON_RANKER_DATASET_RANKING_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/catalog/dataset.h"
#include "common/ranker/sequential_ranker.h"

namespace sluice {

// Every user's training events.
std::vector<std::vector<int32_t>> TrainingSequences(const Dataset& dataset);

// Share of `examples` whose target is among the ranker's first `cutoff` items, items of the history left out.
// Ties count against the target. InvalidArgument: no examples, other items than the ranker's.
absl::StatusOr<double> SequentialHitRate(const SequentialRanker& ranker, const Dataset& dataset,
                                         absl::Span<const Example> examples, int cutoff);

}  // namespace sluice

#endif  // SLUICE_COMMON_RANKER_DATASET_RANKING_H_
