// The rankers that a server offers, by name.
#ifndef SLUICE_REWARD_SERVER_RANKER_RANKER_SET_H_
#define SLUICE_REWARD_SERVER_RANKER_RANKER_SET_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "reward_server/ranker/ranker.h"

namespace sluice::reward {

// Filled at start, then immutable and thread-safe.
class RankerSet {
 public:
  // Names must differ. Later rankers may refer to earlier ones; they are destroyed in reverse order.
  void Add(std::unique_ptr<Ranker> ranker);
  ~RankerSet();
  RankerSet() = default;
  RankerSet(RankerSet&&) = default;
  RankerSet& operator=(RankerSet&&) = default;

  // FailedPrecondition: no such ranker; the message names those there are.
  absl::StatusOr<const Ranker*> Find(absl::string_view name) const;
  // In the order of Add.
  std::vector<const Ranker*> all() const;

 private:
  std::vector<std::unique_ptr<Ranker>> rankers_;
};

}  // namespace sluice::reward

#endif  // SLUICE_REWARD_SERVER_RANKER_RANKER_SET_H_
