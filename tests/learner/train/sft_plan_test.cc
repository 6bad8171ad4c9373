#include "learner/train/sft_plan.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/random/random.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice::learner {
namespace {

using ::testing::ElementsAre;

constexpr int kItems = 400;

// `users` users with 2 to 30 events each, every event its own item as far as they last, all for training but the last
// two. max_history 6.
std::shared_ptr<const Dataset> SomeUsers(int users) {
  Dataset::Contents contents;
  contents.levels = 3;
  contents.codes = 8;
  contents.max_history = 6;
  for (int item = 0; item < kItems; ++item) {
    contents.item_names.push_back(std::to_string(item));
    for (const int code : {item % 8, item / 8 % 8, item / 64}) contents.item_codes.push_back(code);
  }
  contents.first_event = {0};
  Random random(4);
  for (int user = 0; user < users; ++user) {
    contents.user_names.push_back(std::to_string(user));
    const int events = 3 + static_cast<int>(random.Below(28));
    const int first = static_cast<int>(random.Below(kItems - events));
    for (int event = 0; event < events; ++event) {
      contents.event_item.push_back(first + event);
      contents.event_split.push_back(event == events - 1   ? SplitLabel::kTest
                                     : event == events - 2 ? SplitLabel::kValidation
                                                           : SplitLabel::kTrain);
    }
    contents.first_event.push_back(static_cast<int64_t>(contents.event_item.size()));
  }
  return Dataset::FromContents(std::move(contents)).value();
}

SftOptions Plain() {
  SftOptions options;
  options.targets_per_step = 50;
  options.reverse_probability = 0;
  options.delete_sequence_probability = 0;
  return options;
}

std::vector<const SftWindow*> AllWindows(const std::vector<SftStepPlan>& plans) {
  std::vector<const SftWindow*> windows;
  for (const SftStepPlan& plan : plans) {
    for (const SftWindow& window : plan.windows) windows.push_back(&window);
  }
  return windows;
}

TEST(CutIntoWindowsTest, AShortSequenceIsOneWindowThatPredictsAllOfIt) {
  const std::vector<SftWindow> windows = CutIntoWindows({10, 11, 12, 13}, 6, false);
  ASSERT_EQ(windows.size(), 1u);
  EXPECT_THAT(windows[0].items, ElementsAre(10, 11, 12));
  EXPECT_EQ(windows[0].last_target, 13);
  EXPECT_EQ(windows[0].first_anchor, 0);
}

TEST(CutIntoWindowsTest, LaterWindowsPredictTheirSecondHalf) {
  // 9 anchors, width 4: [0, 4), then two each with the two before them as context.
  const std::vector<SftWindow> windows = CutIntoWindows({0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, 4, true);
  ASSERT_EQ(windows.size(), 4u);
  EXPECT_THAT(windows[1].items, ElementsAre(2, 3, 4, 5));
  EXPECT_EQ(windows[1].first_anchor, 2);
  EXPECT_EQ(windows[1].last_target, 6);
  EXPECT_THAT(windows[3].items, ElementsAre(5, 6, 7, 8));  // a rest of one target keeps the full width
  EXPECT_EQ(windows[3].first_anchor, 3);
  EXPECT_TRUE(windows[3].reversed);
}

TEST(CutIntoWindowsTest, PredictsEveryItemAfterTheFirstOnceWithEnoughContext) {
  for (int length = 2; length < 60; ++length) {
    std::vector<int32_t> events(length);
    std::iota(events.begin(), events.end(), 0);
    for (int width = 1; width < 12; ++width) {
      std::vector<int> predicted(length, 0);
      for (const SftWindow& window : CutIntoWindows(events, width, false)) {
        ASSERT_LE(window.items.size(), static_cast<size_t>(width));
        for (size_t anchor = window.first_anchor; anchor < window.items.size(); ++anchor) {
          const int32_t target = window.TargetOf(anchor);
          EXPECT_EQ(target, window.items[anchor] + 1);  // it follows its anchor
          ++predicted[target];
          const int context = static_cast<int>(anchor) + 1;
          EXPECT_GE(context, std::min(target, (width + 1) / 2)) << length << " " << width;
        }
      }
      EXPECT_EQ(predicted[0], 0);
      for (int target = 1; target < length; ++target) EXPECT_EQ(predicted[target], 1) << length << " " << width;
    }
  }
}

TEST(SftPlannerTest, APassTrainsEveryTrainingEventWithAHistoryOnce) {
  const auto dataset = SomeUsers(60);
  const std::vector<SftStepPlan> plans = SftPlanner(*dataset, Plain(), 7).PlanPass(0);
  std::multiset<std::pair<int32_t, int32_t>> want, got;  // (item before, target)
  for (const Example& example : dataset->Examples(SplitLabel::kTrain)) {
    want.insert({dataset->History(example).back(), dataset->Target(example)});
  }
  for (const SftWindow* window : AllWindows(plans)) {
    for (size_t anchor = window->first_anchor; anchor < window->items.size(); ++anchor) {
      got.insert({window->items[anchor], window->TargetOf(anchor)});
    }
  }
  EXPECT_EQ(got, want);
}

TEST(SftPlannerTest, StepsHaveAboutAsManyTargetsAsAsked) {
  const auto dataset = SomeUsers(200);
  const std::vector<SftStepPlan> plans = SftPlanner(*dataset, Plain(), 7).PlanPass(0);
  ASSERT_GT(plans.size(), 20u);
  for (const SftStepPlan& plan : plans) {
    int64_t targets = 0;
    for (const SftWindow& window : plan.windows) targets += window.targets();
    EXPECT_EQ(plan.targets, targets);
    // A window has at most 6 targets and is not split.
    EXPECT_NEAR(static_cast<double>(targets), 50.0, 8.0);
  }
}

TEST(SftPlannerTest, IsAPureFunctionOfSeedAndPass) {
  const auto dataset = SomeUsers(40);
  SftOptions options = Plain();
  options.reverse_probability = 0.5;
  options.delete_sequence_probability = 0.5;
  const auto items = [&](uint64_t seed, int pass) {
    std::vector<std::vector<int32_t>> all;
    const std::vector<SftStepPlan> plans = SftPlanner(*dataset, options, seed).PlanPass(pass);
    for (const SftWindow* window : AllWindows(plans)) all.push_back(window->items);
    return all;
  };
  EXPECT_EQ(items(7, 3), items(7, 3));
  EXPECT_NE(items(7, 3), items(7, 4));
  EXPECT_NE(items(7, 3), items(8, 3));
}

TEST(SftPlannerTest, RanksShareTheWindowsOfAStepEvenly) {
  const auto dataset = SomeUsers(200);
  const std::vector<SftStepPlan> plans = SftPlanner(*dataset, Plain(), 7).PlanPass(0);
  for (const SftStepPlan& plan : plans) {
    for (const int world_size : {1, 2, 3}) {
      std::set<const SftWindow*> seen;
      int64_t least = plan.targets, most = 0;
      for (int rank = 0; rank < world_size; ++rank) {
        int64_t targets = 0;
        for (const SftWindow* window : plan.OfRank(rank, world_size)) {
          EXPECT_TRUE(seen.insert(window).second);
          targets += window->targets();
        }
        least = std::min(least, targets);
        most = std::max(most, targets);
      }
      EXPECT_EQ(seen.size(), plan.windows.size());
      EXPECT_LE(most - least, 6);
    }
  }
}

TEST(SftPlannerTest, ReversesTheAskedShareOfSequencesAndMarksThem) {
  const auto dataset = SomeUsers(2000);
  SftOptions options = Plain();
  options.reverse_probability = 0.3;
  const std::vector<SftStepPlan> plans = SftPlanner(*dataset, options, 7).PlanPass(0);
  int64_t reversed = 0, all = 0;
  for (const SftWindow* window : AllWindows(plans)) {
    // Events of a user ascend in this data set.
    const bool descends = window->last_target < window->items.back();
    EXPECT_EQ(descends, window->reversed);
    reversed += window->targets() * window->reversed;
    all += window->targets();
  }
  EXPECT_NEAR(static_cast<double>(reversed) / static_cast<double>(all), 0.3, 0.04);
}

TEST(SftPlannerTest, DeletesTheAskedShareOfEventsAndKeepsTheirOrder) {
  const auto dataset = SomeUsers(2000);
  SftOptions options = Plain();
  options.delete_sequence_probability = 0.5;
  options.delete_probability = 0.3;
  const std::vector<SftStepPlan> plans = SftPlanner(*dataset, options, 7).PlanPass(0);
  int64_t kept = 0;
  for (const SftWindow* window : AllWindows(plans)) {
    EXPECT_TRUE(std::is_sorted(window->items.begin(), window->items.end()));
    EXPECT_LT(window->items.back(), window->last_target);
    kept += window->targets();
  }
  const auto all = static_cast<double>(dataset->Examples(SplitLabel::kTrain).size());
  EXPECT_NEAR(static_cast<double>(kept) / all, 1 - 0.5 * 0.3, 0.03);
}

TEST(SftPlannerTest, UsersWithoutATrainingPairMakeNoStep) {
  Dataset::Contents contents;
  contents.levels = 1;
  contents.codes = 4;
  contents.item_names = {"a", "b", "c"};
  contents.item_codes = {0, 1, 2};
  contents.user_names = {"u"};
  contents.first_event = {0, 3};
  contents.event_item = {0, 1, 2};
  contents.event_split = {SplitLabel::kTrain, SplitLabel::kValidation, SplitLabel::kTest};
  const auto dataset = Dataset::FromContents(std::move(contents)).value();
  EXPECT_TRUE(SftPlanner(*dataset, Plain(), 7).PlanPass(0).empty());
}

}  // namespace
}  // namespace sluice::learner
