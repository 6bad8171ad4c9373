// The sum of two rankers' scores. Co-occurrence and sequential together beat either: one counts what is bought next to
// each other, the other reads the whole history.
#ifndef SLUICE_REWARD_SERVER_RANKER_BLEND_RANKER_H_
#define SLUICE_REWARD_SERVER_RANKER_BLEND_RANKER_H_

#include <string>
#include <vector>

#include "reward_server/ranker/ranker.h"

namespace sluice::reward {

// Heads: "score", the sum of the parts' first heads, then each part's first head under the part's name.
class BlendRanker : public Ranker {
 public:
  // Both parts must outlive this object and score the same items and users.
  BlendRanker(const Ranker* first, const Ranker* second);

  const std::string& name() const override { return name_; }
  const std::string& version() const override { return version_; }
  const std::vector<std::string>& heads() const override { return heads_; }
  int64_t num_items() const override { return first_->num_items(); }
  int64_t num_users() const override { return first_->num_users(); }
  // A query that one part cannot score has no blend either.
  std::vector<absl::StatusOr<ItemScores>> Score(absl::Span<const ItemQuery> queries) const override;

 private:
  const std::string name_ = "blend";
  const Ranker* const first_;
  const Ranker* const second_;
  const std::vector<std::string> heads_;
  const std::string version_;
};

}  // namespace sluice::reward

#endif  // SLUICE_REWARD_SERVER_RANKER_BLEND_RANKER_H_
