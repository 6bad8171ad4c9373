#include "reward_server/mapped_rankers.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log/log.h"
#include "common/status/status.h"
#include "reward_server/ranker_mapping/mapping.h"
#include "reward_server/ranker_remote/remote_model.h"
#include "reward_server/ranker_torch/exported_model.h"

namespace sluice::reward {
namespace {

absl::StatusOr<std::unique_ptr<TensorModel>> OpenModel(const QueryEncoder& encoder, const WaitFunction& wait) {
  if (encoder.mapping().kind == RankerMapping::Kind::kOpenInference) {
    RemoteModelTools tools;
    tools.start_wait = wait;
    return RemoteModel::Connect(encoder, tools);
  }
  return LoadExportedModel(encoder);
}

}  // namespace

absl::StatusOr<std::vector<const MappedRanker*>> AddMappedRankers(const std::vector<std::string>& files,
                                                                  const std::shared_ptr<const Dataset>& dataset,
                                                                  const WaitFunction& wait, RankerSet* rankers) {
  std::vector<const MappedRanker*> added;
  for (const std::string& file : files) {
    SLUICE_ASSIGN_OR_RETURN(const RankerMapping mapping, ReadRankerMapping(file));
    if (rankers->Find(mapping.name).ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat(file, ": name: there is a ranker ", mapping.name, " already; give another name"));
    }
    LogInfo("opening ranker", {{"ranker", mapping.name}, {"file", file}});
    SLUICE_ASSIGN_OR_RETURN(QueryEncoder encoder, QueryEncoder::Create(mapping, dataset));
    SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<TensorModel> model, OpenModel(encoder, wait));
    auto ranker = std::make_unique<MappedRanker>(std::move(encoder), std::move(model), MonotonicClock());
    SLUICE_RETURN_IF_ERROR(Annotate(ranker->Check(), file));
    LogInfo("ranker ready", {{"ranker", ranker->name()}, {"version", ranker->version()}});
    added.push_back(ranker.get());
    rankers->Add(std::move(ranker));
  }
  return added;
}

}  // namespace sluice::reward
