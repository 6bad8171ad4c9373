// The rankers that mapping files name, added to those of the data set. Wiring: it sees gRPC and LibTorch.
#ifndef SLUICE_REWARD_SERVER_MAPPED_RANKERS_H_
#define SLUICE_REWARD_SERVER_MAPPED_RANKERS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/catalog/dataset.h"
#include "common/time/retry.h"
#include "reward_server/ranker/ranker_set.h"
#include "reward_server/ranker_mapping/mapped_ranker.h"

namespace sluice::reward {

// Reads each file, connects to or loads its model, and has it score its golden groups. The rankers returned are owned
// by `rankers`. Errors are those of the parts, and name the file. Cancelled: `wait`, which waits for servers to get
// ready, gave up.
absl::StatusOr<std::vector<const MappedRanker*>> AddMappedRankers(const std::vector<std::string>& files,
                                                                  const std::shared_ptr<const Dataset>& dataset,
                                                                  const WaitFunction& wait, RankerSet* rankers);

}  // namespace sluice::reward

#endif  // SLUICE_REWARD_SERVER_MAPPED_RANKERS_H_
