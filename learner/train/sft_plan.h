// What supervised training sees in which step: a pure function of (data set, options, seed, pass), the same on every
// rank, so that ranks need not talk about it and a resumed job continues the same order.
//
// Every training event with a history is a target exactly once a pass. A user's events form one sequence (all its
// prefixes are trained in one pass over it), augmented as options say, and cut into windows of at most max_history
// history items: the first window predicts all of its items, later ones only their second half, so a target's context
// is never shorter than half a window unless the sequence is.
#ifndef SLUICE_LEARNER_TRAIN_SFT_PLAN_H_
#define SLUICE_LEARNER_TRAIN_SFT_PLAN_H_

#include <cstdint>
#include <vector>

#include "common/catalog/dataset.h"
#include "learner/options/options.h"

namespace sluice::learner {

// One trunk with its targets: history items, and for each anchor a in [first_anchor, items.size()) the item that
// follows items[a]: items[a + 1], or `last_target` for the last.
struct SftWindow {
  std::vector<int32_t> items;  // oldest first (newest first if reversed)
  int32_t last_target = 0;
  int32_t first_anchor = 0;
  bool reversed = false;

  int64_t targets() const { return static_cast<int64_t>(items.size()) - first_anchor; }
  int32_t TargetOf(size_t anchor) const { return anchor + 1 < items.size() ? items[anchor + 1] : last_target; }
};

struct SftStepPlan {
  std::vector<SftWindow> windows;  // all ranks'
  int64_t targets = 0;

  // The windows of one rank: dealt so that ranks get about the same number of targets.
  std::vector<const SftWindow*> OfRank(int rank, int world_size) const;
};

// Cuts a sequence of at least two items into windows. max_history >= 1.
std::vector<SftWindow> CutIntoWindows(const std::vector<int32_t>& events, int max_history, bool reversed);

class SftPlanner {
 public:
  // `dataset` must outlive this object.
  SftPlanner(const Dataset& dataset, const SftOptions& options, uint64_t seed)
      : dataset_(dataset), options_(options), seed_(seed) {}

  // The steps of one pass, each of about targets_per_step targets. Empty only if no user has two training events.
  std::vector<SftStepPlan> PlanPass(int pass) const;

 private:
  std::vector<int32_t> Augmented(int pass, int32_t user, bool* reversed) const;

  const Dataset& dataset_;
  const SftOptions options_;
  const uint64_t seed_;
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_TRAIN_SFT_PLAN_H_
