// The trained sequential ranker behind the Ranker interface: score = its logit.
#ifndef SLUICE_REWARD_SERVER_RANKER_TORCH_SEQUENTIAL_ITEM_RANKER_H_
#define SLUICE_REWARD_SERVER_RANKER_TORCH_SEQUENTIAL_ITEM_RANKER_H_

#include <memory>
#include <string>
#include <vector>

#include "common/ranker/sequential_ranker.h"
#include "reward_server/ranker/ranker.h"

namespace sluice::reward {

class SequentialItemRanker : public Ranker {
 public:
  // num_users: of the data set it was trained on. The model looks at histories only.
  SequentialItemRanker(std::string name, std::unique_ptr<const SequentialRanker> model, int64_t num_users);

  const std::string& name() const override { return name_; }
  const std::string& version() const override { return version_; }
  const std::vector<std::string>& heads() const override { return heads_; }
  int64_t num_items() const override { return model_->config().num_items; }
  int64_t num_users() const override { return num_users_; }
  // All queries in one batch; an error of the model is the answer to each.
  std::vector<absl::StatusOr<ItemScores>> Score(absl::Span<const ItemQuery> queries) const override;

 private:
  const std::string name_;
  const std::vector<std::string> heads_ = {"score"};
  std::unique_ptr<const SequentialRanker> model_;
  int64_t num_users_;
  std::string version_;
};

}  // namespace sluice::reward

#endif  // SLUICE_REWARD_SERVER_RANKER_TORCH_SEQUENTIAL_ITEM_RANKER_H_
