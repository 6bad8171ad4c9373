#include "learner/train/sft_plan.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "common/random/random.h"

namespace sluice::learner {
namespace {

constexpr uint64_t kAugmentStream = 1;
constexpr uint64_t kOrderStream = 2;

}  // namespace

std::vector<const SftWindow*> SftStepPlan::OfRank(int rank, int world_size) const {
  // Longest first to the rank with the least work: near equal shares, and the same on every rank.
  std::vector<const SftWindow*> by_size;
  for (const SftWindow& window : windows) by_size.push_back(&window);
  std::stable_sort(by_size.begin(), by_size.end(),
                   [](const SftWindow* a, const SftWindow* b) { return a->targets() > b->targets(); });
  std::vector<int64_t> load(static_cast<size_t>(world_size), 0);
  std::vector<const SftWindow*> mine;
  for (const SftWindow* window : by_size) {
    const auto least = std::min_element(load.begin(), load.end());
    *least += window->targets();
    if (least - load.begin() == rank) mine.push_back(window);
  }
  return mine;
}

std::vector<SftWindow> CutIntoWindows(const std::vector<int32_t>& events, int max_history, bool reversed) {
  const int64_t anchors = static_cast<int64_t>(events.size()) - 1;  // anchor a predicts events[a + 1]
  const int64_t width = max_history;
  const int64_t stride = std::max<int64_t>(1, width / 2);
  std::vector<SftWindow> windows;
  int64_t done = 0;  // anchors that have a window
  while (done < anchors) {
    const int64_t end = std::min(anchors, done == 0 ? width : done + stride);
    const int64_t begin = std::max<int64_t>(0, end - width);
    SftWindow window;
    window.items.assign(events.begin() + begin, events.begin() + end);
    window.last_target = events[static_cast<size_t>(end)];
    window.first_anchor = static_cast<int32_t>(done - begin);
    window.reversed = reversed;
    windows.push_back(std::move(window));
    done = end;
  }
  return windows;
}

std::vector<int32_t> SftPlanner::Augmented(int pass, int32_t user, bool* reversed) const {
  Random random(DeriveSeed(seed_, {kAugmentStream, static_cast<uint64_t>(pass), static_cast<uint64_t>(user)}));
  std::vector<int32_t> events = dataset_.TrainingEvents(user);
  *reversed = random.Uniform() < options_.reverse_probability;
  const bool shortened = random.Uniform() < options_.delete_sequence_probability;
  if (shortened) {
    std::vector<int32_t> kept;
    for (const int32_t event : events) {
      if (random.Uniform() >= options_.delete_probability) kept.push_back(event);
    }
    // A sequence needs a history and a target.
    if (kept.size() >= 2) events = std::move(kept);
  }
  if (*reversed) std::reverse(events.begin(), events.end());
  return events;
}

std::vector<SftStepPlan> SftPlanner::PlanPass(int pass) const {
  std::vector<SftWindow> windows;
  int64_t targets = 0;
  for (int32_t user = 0; user < dataset_.num_users(); ++user) {
    bool reversed = false;
    const std::vector<int32_t> events = Augmented(pass, user, &reversed);
    if (events.size() < 2) continue;
    for (SftWindow& window : CutIntoWindows(events, dataset_.max_history(), reversed)) {
      targets += window.targets();
      windows.push_back(std::move(window));
    }
  }
  Random random(DeriveSeed(seed_, {kOrderStream, static_cast<uint64_t>(pass)}));
  for (size_t i = windows.size(); i > 1; --i) std::swap(windows[i - 1], windows[random.Below(i)]);

  // Equal shares instead of full steps and a small last one, whose gradient would be noise at full weight.
  const int64_t steps = std::max<int64_t>(1, (targets + options_.targets_per_step / 2) / options_.targets_per_step);
  std::vector<SftStepPlan> plans;
  int64_t planned = 0;
  for (SftWindow& window : windows) {
    if (planned >= static_cast<int64_t>(plans.size()) * targets / steps) plans.emplace_back();
    planned += window.targets();
    plans.back().targets += window.targets();
    plans.back().windows.push_back(std::move(window));
  }
  return plans;
}

}  // namespace sluice::learner
