// A ranker: the production model whose scores of (user, item) pairs are the reward, behind one interface.
#ifndef SLUICE_REWARD_SERVER_RANKER_RANKER_H_
#define SLUICE_REWARD_SERVER_RANKER_RANKER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace sluice::reward {

// One user and the items to score for them.
struct ItemQuery {
  int32_t user = -1;             // row of the data set; -1: unknown
  std::vector<int32_t> history;  // item ids, oldest first; not empty
  std::vector<int32_t> items;    // item ids
};

// scores[head][i]: raw score of items[i] by that head, in the order of Ranker::heads. Higher is better; scores of two
// users are not comparable.
using ItemScores = std::vector<std::vector<float>>;

// Immutable after construction and thread-safe.
class Ranker {
 public:
  virtual ~Ranker() = default;

  // What a job spec calls it.
  virtual const std::string& name() const = 0;
  // A digest of everything that decides its scores: equal versions score equally.
  virtual const std::string& version() const = 0;
  // Names of its outputs; the first one is "score".
  virtual const std::vector<std::string>& heads() const = 0;
  // Items are 0 to num_items() - 1, users 0 to num_users() - 1.
  virtual int64_t num_items() const = 0;
  virtual int64_t num_users() const = 0;

  // One answer a query, in order. Ids have been checked by the caller (score_groups.h). An answer that is not OK
  // concerns its query alone; scores are returned as the model gives them, finite or not.
  virtual std::vector<absl::StatusOr<ItemScores>> Score(absl::Span<const ItemQuery> queries) const = 0;
};

}  // namespace sluice::reward

#endif  // SLUICE_REWARD_SERVER_RANKER_RANKER_H_
