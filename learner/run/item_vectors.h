// The item vectors that the semantic reward and the value's step rewards compare.
#ifndef SLUICE_LEARNER_RUN_ITEM_VECTORS_H_
#define SLUICE_LEARNER_RUN_ITEM_VECTORS_H_

#include <string>

#include "absl/status/statusor.h"
#include "common/catalog/dataset.h"
#include "common/model/policy.h"
#include "learner/objective/leaf_vectors.h"

namespace sluice::learner {

// By rl.item_vectors: `policy`, what `start` embeds items with; `data`, the data set's item_vectors.npy; or the path of
// an .npy of one row an item of the data set. A leaf of several items has their mean.
// NotFound: no such file, or a data set without vectors. InvalidArgument: another number of rows than items.
absl::StatusOr<LeafVectors> ReadItemVectors(const std::string& which, const Dataset& dataset, const Policy& start);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RUN_ITEM_VECTORS_H_
