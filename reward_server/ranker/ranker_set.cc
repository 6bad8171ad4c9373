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

RankerSet::RankerSet() : made_(std::make_unique<Made>()) {}

void RankerSet::SetFamily(std::unique_ptr<const RankerFamily> family) {
  SLUICE_CHECK(family_ == nullptr, "two families of rankers");
  family_ = std::move(family);
}

RankerSet::~RankerSet() {
  made_.reset();
  while (!rankers_.empty()) rankers_.pop_back();
}

absl::StatusOr<const Ranker*> RankerSet::Find(absl::string_view name) const {
  std::vector<std::string> names;
  for (const std::unique_ptr<Ranker>& ranker : rankers_) {
    if (ranker->name() == name) return ranker.get();
    names.push_back(ranker->name());
  }
  if (family_ != nullptr && family_->Owns(name)) {
    MutexLock lock(&made_->mutex);
    const auto found = made_->rankers.find(name);
    if (found != made_->rankers.end()) return found->second.get();
    SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<Ranker> ranker, family_->Make(name));
    if (made_->rankers.size() >= kMaxMadeRankers) {
      return absl::FailedPreconditionError(absl::StrCat("this server has made ", kMaxMadeRankers, " rankers of ",
                                                        family_->pattern(), ", no more for \"", name,
                                                        "\"; restart it"));
    }
    return made_->rankers.emplace(std::string(name), std::move(ranker)).first->second.get();
  }
  if (family_ != nullptr) names.push_back(family_->pattern());
  return absl::FailedPreconditionError(
      absl::StrCat("no ranker named \"", name, "\" is loaded; there is ", absl::StrJoin(names, ", ")));
}

std::vector<const Ranker*> RankerSet::all() const {
  std::vector<const Ranker*> rankers;
  for (const std::unique_ptr<Ranker>& ranker : rankers_) rankers.push_back(ranker.get());
  MutexLock lock(&made_->mutex);
  for (const auto& [name, ranker] : made_->rankers) rankers.push_back(ranker.get());
  return rankers;
}

}  // namespace sluice::reward
