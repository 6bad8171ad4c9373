#include "reward_server/ranker_mapping/mapped_ranker.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/file/file.h"
#include "common/status/status.h"

namespace sluice::reward {
namespace {

// The tensor of that name. DataLoss: there is none, or two.
absl::StatusOr<const Tensor*> FindOutput(const std::vector<Tensor>& tensors, const std::string& name,
                                         const std::string& ranker) {
  const Tensor* found = nullptr;
  for (const Tensor& tensor : tensors) {
    if (tensor.name != name) continue;
    if (found != nullptr) {
      return absl::DataLossError(absl::StrCat("ranker ", ranker, ": the model answered output '", name, "' twice"));
    }
    found = &tensor;
  }
  if (found == nullptr) {
    return absl::DataLossError(absl::StrCat("ranker ", ranker, ": the model answered without output '", name, "'"));
  }
  return found;
}

// InvalidArgument would say that the query is wrong, and what a model says of a query is no such judgement.
absl::Status AsFailure(const absl::Status& status) {
  if (status.code() != absl::StatusCode::kInvalidArgument) return status;
  return absl::InternalError(status.message());
}

}  // namespace

MappedRanker::MappedRanker(QueryEncoder encoder, std::unique_ptr<const TensorModel> model, NowFunction now)
    : encoder_(std::move(encoder)),
      model_(std::move(model)),
      now_(std::move(now)),
      heads_(encoder_.mapping().heads()),
      version_(
          Sha256(absl::StrCat("mapped ", encoder_.mapping().digest, " ", encoder_.digest(), " ", model_->version()))) {}

std::vector<absl::StatusOr<ItemScores>> MappedRanker::Score(absl::Span<const ItemQuery> queries) const {
  {
    MutexLock lock(&mutex_);
    if (!refused_.ok()) return std::vector<absl::StatusOr<ItemScores>>(queries.size(), refused_);
  }
  return Ask(queries);
}

std::vector<absl::StatusOr<ItemScores>> MappedRanker::Ask(absl::Span<const ItemQuery> queries) const {
  const RankerMapping& mapping = encoder_.mapping();
  const absl::Time deadline = now_() + mapping.remote.deadline;
  std::vector<absl::Status> statuses;
  const std::vector<ModelCall> calls = encoder_.Plan(queries, &statuses);
  std::vector<ItemScores> scores(queries.size(), ItemScores(heads_.size()));
  for (const ModelCall& call : calls) {
    const absl::Status done = [&]() -> absl::Status {
      SLUICE_ASSIGN_OR_RETURN(const std::vector<Tensor> tensors, model_->Run(encoder_.Encode(queries, call), deadline));
      std::vector<std::vector<float>> found;
      for (const MappedOutput& output : mapping.outputs) {
        SLUICE_ASSIGN_OR_RETURN(const Tensor* tensor, FindOutput(tensors, output.output, mapping.name));
        SLUICE_ASSIGN_OR_RETURN(found.emplace_back(), encoder_.Decode(output, *tensor, call));
      }
      for (size_t head = 0; head < found.size(); ++head) {
        auto next = found[head].begin();
        for (const QuerySlice& slice : call.slices) {
          const auto end = next + static_cast<std::ptrdiff_t>(slice.count);
          scores[slice.query][head].insert(scores[slice.query][head].end(), next, end);
          next = end;
        }
      }
      return absl::OkStatus();
    }();
    if (done.ok()) continue;
    for (const QuerySlice& slice : call.slices) statuses[slice.query] = AsFailure(done);
  }
  std::vector<absl::StatusOr<ItemScores>> answers;
  answers.reserve(queries.size());
  for (size_t q = 0; q < queries.size(); ++q) {
    if (statuses[q].ok()) {
      answers.emplace_back(std::move(scores[q]));
    } else {
      answers.emplace_back(statuses[q]);
    }
  }
  return answers;
}

absl::Status MappedRanker::CheckGolden() const {
  const RankerMapping& mapping = encoder_.mapping();
  std::vector<ItemQuery> queries;
  for (const GoldenGroup& group : mapping.golden) {
    const auto inside = [&](const std::vector<int32_t>& items) {
      return std::all_of(items.begin(), items.end(), [&](int32_t item) { return item < num_items(); });
    };
    if (!inside(group.items) || !inside(group.history) || group.user >= num_users()) {
      return absl::InvalidArgumentError(absl::StrCat(group.place,
                                                     ": names a user or item that the data set lacks; it has ",
                                                     num_users(), " users and ", num_items(), " items"));
    }
    queries.push_back({.user = group.user, .history = group.history, .items = group.items});
  }
  if (queries.empty()) queries.push_back({.user = 0, .history = {0}, .items = {0}});
  const std::vector<absl::StatusOr<ItemScores>> answers = Ask(queries);
  for (size_t q = 0; q < queries.size(); ++q) {
    SLUICE_RETURN_IF_ERROR(answers[q].status());
    for (size_t head = 0; head < heads_.size(); ++head) {
      for (size_t i = 0; i < queries[q].items.size(); ++i) {
        const double got = (*answers[q])[head][i];
        const std::string where = absl::StrCat("ranker ", name(), ": head ", heads_[head], " of item ",
                                               queries[q].items[i], " after user ", queries[q].user, "'s history");
        if (!std::isfinite(got)) {
          return absl::FailedPreconditionError(absl::StrCat(where, " is not a finite number"));
        }
        if (mapping.golden.empty()) continue;
        const double want = mapping.golden[q].scores[head][i];
        if (std::fabs(got - want) <= mapping.tolerance * std::max(1.0, std::fabs(want))) continue;
        return absl::FailedPreconditionError(absl::StrCat(
            where, " is ", got, ", ", mapping.golden[q].place, " has ", want, " (tolerance ", mapping.tolerance,
            "); this is another model than the mapping was written for: mend one of the two"));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status MappedRanker::Check() const {
  absl::Status status = CheckGolden();
  if (status.ok() || status.code() == absl::StatusCode::kFailedPrecondition) {
    MutexLock lock(&mutex_);
    refused_ = status;
  }
  return status;
}

}  // namespace sluice::reward
