// The co-occurrence rule as a ranker: score = log(co + 0.003).
//
// The rule's sums are zero for most pairs and heavy-tailed otherwise; the logarithm puts them on the scale of
// log-probabilities, and the constant, about the smallest sum that occurs, keeps unseen pairs finite.
//
// For a user of the data set their own training events are taken out of the counts first. Otherwise the rule has
// memorised the logged target of a training prompt, and its score of it measures memory, not taste.
#ifndef SLUICE_REWARD_SERVER_RANKER_COOCCURRENCE_RANKER_H_
#define SLUICE_REWARD_SERVER_RANKER_COOCCURRENCE_RANKER_H_

#include <memory>
#include <string>
#include <vector>

#include "common/catalog/dataset.h"
#include "common/cooccurrence/cooccurrence.h"
#include "reward_server/ranker/ranker.h"

namespace sluice::reward {

class CooccurrenceRanker : public Ranker {
 public:
  static constexpr float kUnseen = 0.003f;

  explicit CooccurrenceRanker(std::shared_ptr<const Dataset> dataset);

  const std::string& name() const override { return name_; }
  const std::string& version() const override { return version_; }
  const std::vector<std::string>& heads() const override { return heads_; }
  int64_t num_items() const override { return dataset_->num_items(); }
  int64_t num_users() const override { return dataset_->num_users(); }
  std::vector<absl::StatusOr<ItemScores>> Score(absl::Span<const ItemQuery> queries) const override;

 private:
  const std::string name_ = "cooccurrence";
  const std::vector<std::string> heads_ = {"score"};
  std::shared_ptr<const Dataset> dataset_;
  std::shared_ptr<const Cooccurrence> rule_;
  std::string version_;
};

}  // namespace sluice::reward

#endif  // SLUICE_REWARD_SERVER_RANKER_COOCCURRENCE_RANKER_H_
