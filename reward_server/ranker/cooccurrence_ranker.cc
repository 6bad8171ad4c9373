#include "reward_server/ranker/cooccurrence_ranker.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/file/file.h"

namespace sluice::reward {
namespace {

// What decides the counts: every training event in order.
std::string TrainingDigest(const Dataset& dataset) {
  std::string text = absl::StrCat("cooccurrence ", dataset.num_items(), "\n");
  for (int32_t user = 0; user < dataset.num_users(); ++user) {
    for (const int32_t item : dataset.TrainingEvents(user)) absl::StrAppend(&text, item, " ");
    text += '\n';
  }
  return Sha256(text);
}

}  // namespace

CooccurrenceRanker::CooccurrenceRanker(std::shared_ptr<const Dataset> dataset)
    : dataset_(std::move(dataset)), rule_(Cooccurrence::FromDataset(*dataset_)), version_(TrainingDigest(*dataset_)) {}

std::vector<absl::StatusOr<ItemScores>> CooccurrenceRanker::Score(absl::Span<const ItemQuery> queries) const {
  std::vector<absl::StatusOr<ItemScores>> answers;
  answers.reserve(queries.size());
  for (const ItemQuery& query : queries) {
    std::vector<float> scores =
        query.user < 0 ? rule_->Score(query.history, query.items)
                       : rule_->ScoreLeaveOneOut(query.history, query.items, dataset_->TrainingEvents(query.user));
    for (float& score : scores) score = std::log(score + kUnseen);
    answers.emplace_back(ItemScores{std::move(scores)});
  }
  return answers;
}

}  // namespace sluice::reward
