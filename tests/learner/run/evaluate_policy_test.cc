#include "learner/run/evaluate_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "common/collective/collective.h"
#include "common/random/random.h"
#include "common/sync/memory_kv_store.h"
#include "common/sync/thread.h"
#include "learner/run/prompt_order.h"

namespace sluice::learner {
namespace {

using ::testing::ElementsAre;

constexpr int kItems = 60;

// 40 semantic IDs of three levels; items 40 to 59 share those of items 0 to 19. 30 users of 4 to 9 events.
std::shared_ptr<const Dataset> SomeUsers() {
  Dataset::Contents contents;
  contents.name = "some";
  contents.levels = 3;
  contents.codes = 5;
  contents.max_history = 4;
  for (int item = 0; item < kItems; ++item) {
    const int sid = item % 40;
    contents.item_names.push_back(std::to_string(item));
    for (const int code : {sid / 20, sid / 4 % 5, sid % 4}) contents.item_codes.push_back(code);
  }
  contents.first_event = {0};
  Random random(3);
  for (int user = 0; user < 30; ++user) {
    contents.user_names.push_back(std::to_string(user));
    const int events = 4 + static_cast<int>(random.Below(6));
    for (int i = 0; i < events; ++i) {
      contents.event_item.push_back(static_cast<int32_t>(random.Below(kItems)));
      contents.event_split.push_back(i + 1 == events   ? SplitLabel::kTest
                                     : i + 2 == events ? SplitLabel::kValidation
                                                       : SplitLabel::kTrain);
    }
    contents.first_event.push_back(static_cast<int64_t>(contents.event_item.size()));
  }
  return Dataset::FromContents(std::move(contents)).value();
}

Completion Beam(const Trie& trie, int32_t item) {
  Completion completion;
  completion.leaf = item < 0 ? -1 : trie.LeafOfItem(item);
  return completion;
}

TEST(JudgeBeamsTest, ASmallListIsJudgedAsByHand) {
  const auto dataset = SomeUsers();
  const Trie& trie = dataset->trie();
  // Items 3 and 43 share a semantic ID, as do 0 and 40. Codes: 3 = (0, 0, 3), 0 = (0, 0, 0), 25 = (1, 1, 1).
  const std::vector<Completion> list = {Beam(trie, 25), Beam(trie, 3), Beam(trie, 0)};
  std::vector<Completion> free(12, Beam(trie, 1));
  free[4] = free[9] = free[10] = Beam(trie, -1);
  const PromptOutcome found = JudgeBeams(trie, /*target=*/40, /*excluded=*/{3}, list, free);
  EXPECT_THAT(found.top_items, ElementsAre(25, 43, 0, 40));  // 3 was had before, its twin was not
  EXPECT_EQ(found.item_rank, 4);
  EXPECT_EQ(found.sid_rank, 3);
  EXPECT_EQ(found.shared_first, 0);  // (1, 1, 1) against (0, 0, 0)
  EXPECT_EQ(found.shared_top, 3);
  EXPECT_NEAR(*found.diversity, (1 + 1 + 1.0 / 3) / 3, 1e-12);
  EXPECT_EQ(found.unconstrained, 10);
  EXPECT_EQ(found.invalid, 2);
  EXPECT_EQ(found.unconstrained_wide, 0) << "12 beams are no 50";

  free.resize(60, Beam(trie, -1));
  const PromptOutcome wide = JudgeBeams(trie, 40, {}, list, free);
  EXPECT_EQ(wide.invalid, 2);
  EXPECT_EQ(wide.unconstrained_wide, 50);
  EXPECT_EQ(wide.invalid_wide, 3 + 38);
}

TEST(JudgeBeamsTest, NothingAfterTheTenthPlaceIsInTheTop) {
  const auto dataset = SomeUsers();
  const Trie& trie = dataset->trie();
  std::vector<Completion> list;
  for (int item = 20; item < 40; ++item) list.push_back(Beam(trie, item));
  const PromptOutcome found = JudgeBeams(trie, 35, {}, list, {});
  EXPECT_EQ(found.item_rank, 16);
  EXPECT_EQ(found.top_items.size(), 10u);
  EXPECT_EQ(found.top_leaves.size(), 10u);
  // Slow oracle: over the first ten, code by code.
  int32_t most = 0;
  for (int item = 20; item < 30; ++item) {
    int32_t shared = 0;
    while (shared < 3 && trie.TokensOfLeaf(trie.LeafOfItem(item))[static_cast<size_t>(shared)] ==
                             trie.TokensOfLeaf(trie.LeafOfItem(35))[static_cast<size_t>(shared)]) {
      ++shared;
    }
    most = std::max(most, shared);
  }
  EXPECT_EQ(found.shared_top, most);
  EXPECT_LT(most, 3) << "the target itself comes later";
}

TEST(ShapeOfTest, TheHeadIsOfTrainingEventsAlone) {
  const auto dataset = SomeUsers();
  std::vector<int64_t> events(kItems, 0);
  for (const Example& example : dataset->Examples(SplitLabel::kTrain)) ++events[dataset->Target(example)];
  for (int32_t user = 0; user < 30; ++user) ++events[dataset->Events(user)[0]];  // has no history, but counts
  const CatalogShape shape = ShapeOf(*dataset, 0.3);
  EXPECT_EQ(shape.num_leaves, 40);
  EXPECT_EQ(shape.levels, 3);
  EXPECT_EQ(shape.head, HeadItems(events, 0.3));
  EXPECT_GT(std::count(shape.head.begin(), shape.head.end(), 1), 0);
}

TEST(OutcomeRowsTest, SayWhatTheDataSetKnowsOfUserAndTarget) {
  const auto dataset = SomeUsers();
  const std::vector<Example> examples = dataset->Examples(SplitLabel::kTest);
  std::vector<PromptOutcome> rule;
  EvaluateCooccurrenceRule(*dataset, examples, 0.5, &rule);
  const std::vector<OutcomeRow> rows =
      OutcomeRows(*dataset, examples, std::vector<PromptOutcome>(examples.size()), /*exclude_history=*/true);
  ASSERT_EQ(rows.size(), examples.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(rows[i].history, examples[i].position);
    EXPECT_EQ(rows[i].rule_rank <= 50 ? rows[i].rule_rank : 0, rule[i].item_rank) << i;  // the rule's list ends at 50
    int32_t popularity = 0;
    for (int32_t user = 0; user < 30; ++user) {
      for (const int32_t item : dataset->TrainingEvents(user)) popularity += item == dataset->Target(examples[i]);
    }
    EXPECT_EQ(rows[i].popularity, popularity);
  }
}

TEST(GatherOutcomesTest, EveryRankHasAllUsersInOrder) {
  constexpr int kWorld = 3;
  constexpr size_t kTotal = 40;
  std::vector<PromptOutcome> all(kTotal);
  Random random(5);
  for (size_t i = 0; i < kTotal; ++i) {
    all[i].user = static_cast<int32_t>(i);
    all[i].position = static_cast<int32_t>(random.Below(100));
    all[i].item_rank = static_cast<int32_t>(random.Below(50));
    all[i].invalid_wide = static_cast<int32_t>(random.Below(50));
    if (i % 4 != 0) all[i].diversity = random.Uniform();
  }
  const auto store = std::make_shared<MemoryKvStore>();
  std::vector<Thread> ranks;
  for (int rank = 0; rank < kWorld; ++rank) {
    ranks.push_back(StartThread("rank", [&, rank] {
      const auto group = MakeGlooCollective(store, rank, kWorld, 1, {.name = "gather", .timeout = absl::Seconds(60)});
      ASSERT_TRUE(group.ok()) << group.status();
      std::vector<PromptOutcome> mine;
      for (size_t i = static_cast<size_t>(rank); i < kTotal; i += kWorld) mine.push_back(all[i]);
      const auto gathered = GatherOutcomes(**group, std::move(mine), kTotal);
      ASSERT_TRUE(gathered.ok()) << gathered.status();
      ASSERT_EQ(gathered->size(), kTotal);
      for (size_t i = 0; i < kTotal; ++i) {
        EXPECT_EQ((*gathered)[i].user, all[i].user);
        EXPECT_EQ((*gathered)[i].position, all[i].position);
        EXPECT_EQ((*gathered)[i].item_rank, all[i].item_rank);
        EXPECT_EQ((*gathered)[i].invalid_wide, all[i].invalid_wide);
        EXPECT_EQ((*gathered)[i].diversity, all[i].diversity);
      }
    }));
  }
}

TEST(OfParityTest, EvenAndOddUsersArePartsOfAll) {
  const auto dataset = SomeUsers();
  const std::vector<Example> all = dataset->Examples(SplitLabel::kTrain);
  const std::vector<Example> even = OfParity(all, UserParity::kEven), odd = OfParity(all, UserParity::kOdd);
  EXPECT_EQ(OfParity(all, UserParity::kAll).size(), all.size());
  EXPECT_EQ(even.size() + odd.size(), all.size());
  EXPECT_FALSE(even.empty() || odd.empty());
  for (const Example& example : even) EXPECT_EQ(example.user % 2, 0);
  for (const Example& example : odd) EXPECT_EQ(example.user % 2, 1);
}

}  // namespace
}  // namespace sluice::learner
