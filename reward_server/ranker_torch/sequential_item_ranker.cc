#include "reward_server/ranker_torch/sequential_item_ranker.h"

#include <utility>

namespace sluice::reward {

SequentialItemRanker::SequentialItemRanker(std::string name, std::unique_ptr<const SequentialRanker> model,
                                           int64_t num_users)
    : name_(std::move(name)), model_(std::move(model)), num_users_(num_users), version_(model_->Digest()) {}

std::vector<absl::StatusOr<ItemScores>> SequentialItemRanker::Score(absl::Span<const ItemQuery> queries) const {
  std::vector<std::vector<int32_t>> histories, items;
  for (const ItemQuery& query : queries) {
    histories.push_back(query.history);
    items.push_back(query.items);
  }
  absl::StatusOr<std::vector<std::vector<float>>> scores = model_->Score(histories, items);
  std::vector<absl::StatusOr<ItemScores>> answers;
  answers.reserve(queries.size());
  for (size_t q = 0; q < queries.size(); ++q) {
    if (scores.ok()) {
      answers.emplace_back(ItemScores{std::move((*scores)[q])});
    } else {
      answers.emplace_back(scores.status());
    }
  }
  return answers;
}

}  // namespace sluice::reward
