#include "reward_server/ranker_torch/load_rankers.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/file/file.h"
#include "common/ranker/sequential_ranker.h"
#include "common/status/status.h"
#include "reward_server/ranker/blend_ranker.h"
#include "reward_server/ranker/cooccurrence_ranker.h"
#include "reward_server/ranker_torch/sequential_item_ranker.h"

namespace sluice::reward {

absl::StatusOr<RankerSet> LoadRankers(std::shared_ptr<const Dataset> dataset) {
  RankerSet rankers;
  rankers.Add(std::make_unique<CooccurrenceRanker>(dataset));
  const std::string folder = JoinPath(dataset->folder(), kSequentialRankerFolder);
  if (dataset->folder().empty() || !PathExists(folder)) return rankers;

  SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<SequentialRanker> model, SequentialRanker::Load(folder));
  if (model->config().num_items != dataset->num_items()) {
    return absl::DataLossError(absl::StrCat(folder, ": the ranker has ", model->config().num_items,
                                            " items, the data set ", dataset->num_items(),
                                            "; prepare the data set again"));
  }
  rankers.Add(std::make_unique<SequentialItemRanker>(std::move(model), dataset->num_users()));
  rankers.Add(std::make_unique<BlendRanker>(*rankers.Find("cooccurrence"), *rankers.Find("sequential")));
  return rankers;
}

}  // namespace sluice::reward
