#include "reward_server/ranker/truth_ranker.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/file/file.h"
#include "common/status/status.h"

namespace sluice::reward {
namespace {

template <typename T>
std::string BytesDigest(const std::vector<T>& values) {
  return Sha256(absl::string_view(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)));
}

std::string TruthDigest(const MarketTruth& truth) {
  const MarketTruth::Contents& contents = truth.contents();
  return Sha256(absl::StrCat(contents.dim, " ", contents.regions, " ", contents.seed, " ",
                             BytesDigest(contents.item_vectors), " ", BytesDigest(contents.user_vectors), " ",
                             BytesDigest(contents.user_region), " ", BytesDigest(contents.item_cell), " ",
                             BytesDigest(contents.log_popularity)));
}

}  // namespace

std::vector<absl::StatusOr<ItemScores>> TruthRanker::Score(absl::Span<const ItemQuery> queries) const {
  std::vector<absl::StatusOr<ItemScores>> answers;
  answers.reserve(queries.size());
  for (const ItemQuery& query : queries) {
    if (query.user < 0) {
      answers.emplace_back(absl::InvalidArgumentError(
          absl::StrCat("ranker ", name_, " knows the users of its market alone; want a user of the data set")));
      continue;
    }
    std::vector<float> scores;
    scores.reserve(query.items.size());
    for (const int32_t item : query.items) scores.push_back(static_cast<float>(ranking_.Score(query.user, item)));
    answers.emplace_back(ItemScores{std::move(scores)});
  }
  return answers;
}

TruthRankerFamily::TruthRankerFamily(std::shared_ptr<const MarketTruth> truth)
    : truth_(std::move(truth)), digest_(TruthDigest(*truth_)) {}

absl::StatusOr<std::unique_ptr<Ranker>> TruthRankerFamily::Make(absl::string_view name) const {
  SLUICE_ASSIGN_OR_RETURN(TruthRanking ranking, TruthRanking::FromName(truth_, name));
  return std::make_unique<TruthRanker>(std::string(name), std::move(ranking), Sha256(absl::StrCat(name, " ", digest_)));
}

}  // namespace sluice::reward
