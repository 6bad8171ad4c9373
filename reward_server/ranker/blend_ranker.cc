#include "reward_server/ranker/blend_ranker.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/file/file.h"
#include "common/status/status.h"

namespace sluice::reward {

BlendRanker::BlendRanker(const Ranker* first, const Ranker* second)
    : first_(first),
      second_(second),
      heads_({"score", first->name(), second->name()}),
      version_(Sha256(absl::StrCat("blend ", first->version(), " ", second->version()))) {
  SLUICE_CHECK(first->num_items() == second->num_items() && first->num_users() == second->num_users(),
               "blend of rankers of different data sets");
}

std::vector<absl::StatusOr<ItemScores>> BlendRanker::Score(absl::Span<const ItemQuery> queries) const {
  std::vector<absl::StatusOr<ItemScores>> first = first_->Score(queries);
  std::vector<absl::StatusOr<ItemScores>> second = second_->Score(queries);
  std::vector<absl::StatusOr<ItemScores>> answers;
  answers.reserve(queries.size());
  for (size_t q = 0; q < queries.size(); ++q) {
    if (!first[q].ok() || !second[q].ok()) {
      answers.push_back(first[q].ok() ? second[q].status() : first[q].status());
      continue;
    }
    std::vector<float>& a = first[q]->front();
    std::vector<float>& b = second[q]->front();
    std::vector<float> sum(a.size());
    for (size_t i = 0; i < sum.size(); ++i) sum[i] = a[i] + b[i];
    answers.emplace_back(ItemScores{std::move(sum), std::move(a), std::move(b)});
  }
  return answers;
}

}  // namespace sluice::reward
