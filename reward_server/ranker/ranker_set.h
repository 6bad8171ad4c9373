// The rankers that a server offers, by name.
#ifndef SLUICE_REWARD_SERVER_RANKER_RANKER_SET_H_
#define SLUICE_REWARD_SERVER_RANKER_RANKER_SET_H_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/sync/mutex.h"
#include "reward_server/ranker/ranker.h"

namespace sluice::reward {

// Makes rankers whose names carry settings. Immutable; thread-safe.
class RankerFamily {
 public:
  virtual ~RankerFamily() = default;
  // What its names look like, for messages: "truth:KIND:SHARE".
  virtual const std::string& pattern() const = 0;
  // Whether a name is meant for it, rightly written or not.
  virtual bool Owns(absl::string_view name) const = 0;
  // A ranker of exactly this name. InvalidArgument says what is wrong with it.
  virtual absl::StatusOr<std::unique_ptr<Ranker>> Make(absl::string_view name) const = 0;
};

// Filled at start, then thread-safe. Rankers of a family are made when they are first asked for, and stay.
class RankerSet {
 public:
  // Names come from clients, so there is a bound on how many rankers they can have made.
  static constexpr size_t kMaxMadeRankers = 256;

  // Names must differ. Later rankers may refer to earlier ones; they are destroyed in reverse order.
  void Add(std::unique_ptr<Ranker> ranker);
  // At most one; names of Add come first.
  void SetFamily(std::unique_ptr<const RankerFamily> family);
  ~RankerSet();
  RankerSet();
  RankerSet(RankerSet&&) = default;
  RankerSet& operator=(RankerSet&&) = default;

  // FailedPrecondition: no such ranker, the message names those there are; or one too many of the family. Errors of
  // RankerFamily::Make.
  absl::StatusOr<const Ranker*> Find(absl::string_view name) const;
  // In the order of Add, then those of the family that were asked for, by name.
  std::vector<const Ranker*> all() const;

 private:
  struct Made {
    Mutex mutex;
    std::map<std::string, std::unique_ptr<Ranker>, std::less<>> rankers ABSL_GUARDED_BY(mutex);
  };
  std::vector<std::unique_ptr<Ranker>> rankers_;
  std::unique_ptr<const RankerFamily> family_;  // null: none
  std::unique_ptr<Made> made_;                  // never null but in what was moved from
};

}  // namespace sluice::reward

#endif  // SLUICE_REWARD_SERVER_RANKER_RANKER_SET_H_
