#include "learner/run/prompt_order.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <utility>

namespace sluice::learner {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// Two users, four items, SIDs of two levels.
std::shared_ptr<const Dataset> SmallDataset() {
  Dataset::Contents contents;
  contents.name = "small";
  contents.item_names = {"a", "b", "c", "d"};
  contents.user_names = {"u", "v"};
  contents.first_event = {0, 5, 9};
  contents.event_item = {0, 1, 2, 3, 0, 3, 2, 1, 0};
  const SplitLabel train = SplitLabel::kTrain;
  contents.event_split = {train,
                          train,
                          train,
                          SplitLabel::kValidation,
                          SplitLabel::kTest,
                          train,
                          train,
                          SplitLabel::kValidation,
                          SplitLabel::kTest};
  contents.item_codes = {0, 0, 0, 1, 1, 0, 1, 1};
  contents.levels = 2;
  contents.codes = 2;
  contents.max_history = 2;
  return Dataset::FromContents(contents).value();
}

TEST(SliceOfStepTest, CutsAStepIntoConsecutiveSlices) {
  // Step 3 of 64 groups is ordinals 192..255; the second of two ranks has 224..255.
  const OrdinalRange slice = SliceOfStep(3, 64, 1, 2);
  EXPECT_EQ(slice.first, 224u);
  EXPECT_EQ(slice.count, 32u);
}

TEST(SliceOfStepTest, CoversEveryOrdinalOnceWhateverTheWorldSize) {
  for (const int world : {1, 2, 4}) {
    std::set<uint64_t> seen;
    for (uint64_t step = 0; step < 3; ++step) {
      for (int rank = 0; rank < world; ++rank) {
        const OrdinalRange slice = SliceOfStep(step, 8, rank, world);
        for (uint64_t o = slice.first; o < slice.first + slice.count; ++o) EXPECT_TRUE(seen.insert(o).second);
      }
    }
    EXPECT_EQ(seen.size(), 24u);
    EXPECT_EQ(*seen.rbegin(), 23u);
  }
}

TEST(ValidateSlicesTest, NamesTheNumbersThatDoNotFit) {
  EXPECT_TRUE(ValidateSlices(64, 8, 2).ok());
  EXPECT_THAT(ValidateSlices(60, 8, 2).message(), HasSubstr("rl.groups_per_step = 60"));
}

TEST(PromptOrderTest, VisitsEveryExampleOnceAPass) {
  const auto dataset = SmallDataset();
  // Training targets with a history: positions 1 and 2 of the first user, 1 of the second.
  const std::vector<Example> examples = dataset->Examples(SplitLabel::kTrain);
  ASSERT_EQ(examples.size(), 3u);
  const PromptOrder order(*dataset, examples, 17);
  for (uint64_t pass = 0; pass < 4; ++pass) {
    std::set<std::pair<int32_t, int32_t>> seen;
    for (uint64_t i = 0; i < 3; ++i) {
      const Prompt prompt = order.At(pass * 3 + i);
      EXPECT_EQ(prompt.ordinal, pass * 3 + i);
      seen.insert({prompt.user, prompt.target});
    }
    EXPECT_THAT(seen, ElementsAre(std::pair(0, 1), std::pair(0, 2), std::pair(1, 2)));
  }
}

TEST(PromptOrderTest, CutsTheHistoryToTheWindow) {
  const auto dataset = SmallDataset();
  const std::vector<Example> examples = dataset->Examples(SplitLabel::kTest);
  const PromptOrder order(*dataset, examples, 1);
  std::map<int32_t, std::vector<int32_t>> history_of;
  for (const Prompt& prompt : order.Range({0, 2})) history_of[prompt.user] = prompt.history;
  EXPECT_THAT(history_of[0], ElementsAre(2, 3));
  EXPECT_THAT(history_of[1], ElementsAre(2, 1));
}

TEST(ChooseExamplesTest, TakesTheSameSortedChoiceForASeed) {
  std::vector<Example> all;
  for (int32_t user = 0; user < 1000; ++user) all.push_back({user, 1});
  const std::vector<Example> first = ChooseExamples(all, 50, 3);
  const std::vector<Example> again = ChooseExamples(all, 50, 3);
  ASSERT_EQ(first.size(), 50u);
  std::set<int32_t> users;
  for (size_t i = 0; i < first.size(); ++i) {
    EXPECT_EQ(first[i].user, again[i].user);
    users.insert(first[i].user);
    if (i > 0) {
      EXPECT_LT(first[i - 1].user, first[i].user);
    }
  }
  EXPECT_EQ(users.size(), 50u);
  EXPECT_EQ(ChooseExamples(all, 0, 3).size(), 1000u);
}

}  // namespace
}  // namespace sluice::learner
