#include "reward_server/ranker_torch/load_rankers.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/file/file.h"
#include "common/ranker/sequential_ranker.h"
#include "common/status/status.h"
#include "reward_server/ranker/blend_ranker.h"
#include "reward_server/ranker/cooccurrence_ranker.h"
#include "reward_server/ranker/truth_ranker.h"
#include "reward_server/ranker_torch/sequential_item_ranker.h"

namespace sluice::reward {

namespace {

// Adds the sequential ranker of that folder inside the data set's, if it is there. Returns whether it was.
absl::StatusOr<bool> AddSequential(const Dataset& dataset, const char* subfolder, const std::string& name,
                                   RankerSet* rankers) {
  const std::string folder = JoinPath(dataset.folder(), subfolder);
  if (dataset.folder().empty() || !PathExists(folder)) return false;
  SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<SequentialRanker> model, SequentialRanker::Load(folder));
  if (model->config().num_items != dataset.num_items()) {
    return absl::DataLossError(absl::StrCat(folder, ": the ranker has ", model->config().num_items,
                                            " items, the data set ", dataset.num_items(),
                                            "; prepare the data set again"));
  }
  rankers->Add(std::make_unique<SequentialItemRanker>(name, std::move(model), dataset.num_users()));
  return true;
}

}  // namespace

absl::StatusOr<RankerSet> LoadRankers(std::shared_ptr<const Dataset> dataset) {
  RankerSet rankers;
  rankers.Add(std::make_unique<CooccurrenceRanker>(dataset));
  SLUICE_ASSIGN_OR_RETURN(const bool sequential,
                          AddSequential(*dataset, kSequentialRankerFolder, "sequential", &rankers));
  if (sequential) {
    rankers.Add(std::make_unique<BlendRanker>(*rankers.Find("cooccurrence"), *rankers.Find("sequential")));
  }
  SLUICE_RETURN_IF_ERROR(AddSequential(*dataset, kUnbiasedRankerFolder, "unbiased", &rankers).status());
  if (dataset->truth() != nullptr) {
    auto family = std::make_unique<const TruthRankerFamily>(dataset->shared_truth());
    SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<Ranker> truth, family->Make("truth"));
    rankers.Add(std::move(truth));
    rankers.SetFamily(std::move(family));
  }
  return rankers;
}

}  // namespace sluice::reward
