#include "reward_server/ranker/ranker_set.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/status/status.h"

namespace sluice::reward {

void RankerSet::Add(std::unique_ptr<Ranker> ranker) {
  SLUICE_CHECK(!Find(ranker->name()).ok(), "two rankers of one name");
  rankers_.push_back(std::move(ranker));
}

RankerSet::~RankerSet() {
  while (!rankers_.empty()) rankers_.pop_back();
}

absl::StatusOr<const Ranker*> RankerSet::Find(absl::string_view name) const {
  std::vector<std::string> names;
  for (const std::unique_ptr<Ranker>& ranker : rankers_) {
    if (ranker->name() == name) return ranker.get();
    names.push_back(ranker->name());
  }
  return absl::FailedPreconditionError(
      absl::StrCat("no ranker named \"", name, "\" is loaded; there is ", absl::StrJoin(names, ", ")));
}

std::vector<const Ranker*> RankerSet::all() const {
  std::vector<const Ranker*> rankers;
  for (const std::unique_ptr<Ranker>& ranker : rankers_) rankers.push_back(ranker.get());
  return rankers;
}

}  // namespace sluice::reward
