// The rankers of a prepared data set.
#ifndef SLUICE_REWARD_SERVER_RANKER_TORCH_LOAD_RANKERS_H_
#define SLUICE_REWARD_SERVER_RANKER_TORCH_LOAD_RANKERS_H_

#include <memory>

#include "absl/status/statusor.h"
#include "common/catalog/dataset.h"
#include "reward_server/ranker/ranker_set.h"

namespace sluice::reward {

// The folder inside a data set's that the prepare job writes the sequential ranker to.
inline constexpr char kSequentialRankerFolder[] = "sequential_ranker";

// The same, of the ranker that was trained on the whole log, where the other one's log had exposure bias injected.
inline constexpr char kUnbiasedRankerFolder[] = "sequential_ranker_unbiased";

// "cooccurrence", counted from the training events; "sequential" and "blend" if the data set's folder holds a
// sequential ranker; "unbiased" if it holds one without injected bias beside it. Of a generated market also "truth"
// and, when asked for, its kinds of known error. DataLoss: a ranker is damaged, or was trained on another catalog.
absl::StatusOr<RankerSet> LoadRankers(std::shared_ptr<const Dataset> dataset);

}  // namespace sluice::reward

#endif  // SLUICE_REWARD_SERVER_RANKER_TORCH_LOAD_RANKERS_H_
