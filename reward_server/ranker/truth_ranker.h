// The truth of a generated market as a ranker, with a known error by its name (common/market/truth_ranking.h).
#ifndef SLUICE_REWARD_SERVER_RANKER_TRUTH_RANKER_H_
#define SLUICE_REWARD_SERVER_RANKER_TRUTH_RANKER_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/catalog/market_truth.h"
#include "common/market/truth_ranking.h"
#include "reward_server/ranker/ranker.h"
#include "reward_server/ranker/ranker_set.h"

namespace sluice::reward {

// Looks at the user's number, not at the history: a query of an unknown user is refused.
class TruthRanker : public Ranker {
 public:
  TruthRanker(std::string name, TruthRanking ranking, std::string version)
      : name_(std::move(name)), ranking_(std::move(ranking)), version_(std::move(version)) {}

  const std::string& name() const override { return name_; }
  const std::string& version() const override { return version_; }
  const std::vector<std::string>& heads() const override { return heads_; }
  int64_t num_items() const override { return ranking_.truth().num_items(); }
  int64_t num_users() const override { return ranking_.truth().num_users(); }
  std::vector<absl::StatusOr<ItemScores>> Score(absl::Span<const ItemQuery> queries) const override;

 private:
  const std::string name_;
  const std::vector<std::string> heads_ = {"score"};
  const TruthRanking ranking_;
  const std::string version_;
};

// All names of truth_ranking.h.
class TruthRankerFamily : public RankerFamily {
 public:
  explicit TruthRankerFamily(std::shared_ptr<const MarketTruth> truth);

  const std::string& pattern() const override { return pattern_; }
  bool Owns(absl::string_view name) const override { return IsTruthRankingName(name); }
  absl::StatusOr<std::unique_ptr<Ranker>> Make(absl::string_view name) const override;

 private:
  const std::string pattern_ = "truth:KIND:SHARE";
  const std::shared_ptr<const MarketTruth> truth_;
  const std::string digest_;  // of the truth
};

}  // namespace sluice::reward

#endif  // SLUICE_REWARD_SERVER_RANKER_TRUTH_RANKER_H_
