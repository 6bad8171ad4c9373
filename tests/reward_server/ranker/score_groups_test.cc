#include "reward_server/ranker/score_groups.h"

#include <limits>
#include <new>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "reward_server/ranker/blend_ranker.h"
#include "reward_server/ranker/ranker_set.h"
#include "tests/testing/fake_ranker.h"

namespace sluice::reward {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

GroupToScore MakeGroup(uint64_t ordinal) {
  GroupToScore group;
  group.ordinal = ordinal;
  group.attempt = 2;
  group.user = 1;
  group.history = {4, 7};
  group.target = 9;
  group.candidates = {{1}, {2, 3}};
  return group;
}

std::vector<GroupResult> Score(const Ranker& ranker, const std::vector<GroupToScore>& groups) {
  std::vector<const GroupToScore*> pointers;
  for (const GroupToScore& group : groups) pointers.push_back(&group);
  return ScoreGroups(ranker, pointers);
}

TEST(ScoreGroupsTest, ScoresCandidatesAndTargetUnderEveryHead) {
  const FakeRanker ranker;
  const std::vector<GroupResult> results = Score(ranker, {MakeGroup(17)});
  ASSERT_EQ(results.size(), 1u);
  EXPECT_EQ(results[0].status, GroupStatus::kOk);
  EXPECT_EQ(results[0].ordinal, 17u);
  EXPECT_EQ(results[0].attempt, 2u);
  ASSERT_EQ(results[0].heads.size(), 2u);
  EXPECT_EQ(results[0].heads[0].head, "score");
  EXPECT_THAT(results[0].heads[0].scores, ElementsAre(17, 37));  // best of 27 and 37
  EXPECT_EQ(results[0].heads[0].target, 97);
  EXPECT_THAT(results[0].heads[1].scores, ElementsAre(-17, -27));
}

TEST(ScoreGroupsTest, AnItemLeftOutIsScoredGivenTheRestOfTheHistory) {
  const FakeRanker ranker;  // 10 * item + newest item
  std::vector<GroupToScore> groups = {MakeGroup(1), MakeGroup(2), MakeGroup(3)};
  groups[0].history = {4, 7, 4, 7};
  groups[0].leave_out = {7, 4};
  groups[2].leave_out = {7};
  const std::vector<GroupResult> results = Score(ranker, groups);
  EXPECT_THAT(results[0].heads[0].left_out, ElementsAre(74, 47));  // every 7 is gone, then every 4
  EXPECT_THAT(results[0].heads[1].left_out, ElementsAre(-74, -47));
  EXPECT_THAT(results[0].heads[0].scores, ElementsAre(17, 37));
  EXPECT_THAT(results[1].heads[0].left_out, IsEmpty());
  EXPECT_THAT(results[2].heads[0].left_out, ElementsAre(74));
}

TEST(ScoreGroupsTest, WhatCannotBeLeftOutIsRefused) {
  const FakeRanker ranker;
  std::vector<GroupToScore> groups = {MakeGroup(1), MakeGroup(2)};
  groups[0].leave_out = {5};
  groups[1].history = {7, 7};
  groups[1].leave_out = {7};
  const std::vector<GroupResult> results = Score(ranker, groups);
  EXPECT_EQ(results[0].status, GroupStatus::kInvalidInput);
  EXPECT_THAT(results[0].error, HasSubstr("item 5 cannot be left out of the history, which holds it nowhere"));
  EXPECT_EQ(results[1].status, GroupStatus::kInvalidInput);
  EXPECT_THAT(results[1].error, HasSubstr("holds nothing else"));
}

TEST(ScoreGroupsTest, AMissingScoreOfAnItemLeftOutFailsItsGroupAlone) {
  FakeRanker ranker;
  std::vector<GroupToScore> groups = {MakeGroup(1), MakeGroup(2), MakeGroup(3)};
  for (GroupToScore& group : groups) group.leave_out = {7};
  groups[2].leave_out.clear();
  ranker.set_hook([](absl::Span<const ItemQuery> queries, std::vector<absl::StatusOr<ItemScores>>* answers) {
    if (queries[0].items.size() == 1) (*answers)[1]->at(0)[0] = std::numeric_limits<float>::quiet_NaN();
  });
  std::vector<GroupResult> results = Score(ranker, groups);
  EXPECT_EQ(results[0].status, GroupStatus::kOk);
  EXPECT_EQ(results[1].status, GroupStatus::kNotFinite);
  EXPECT_THAT(results[1].heads, IsEmpty());
  EXPECT_EQ(results[2].status, GroupStatus::kOk);
  ranker.set_hook([](absl::Span<const ItemQuery> queries, std::vector<absl::StatusOr<ItemScores>>*) {
    if (queries[0].items.size() == 1) throw std::bad_alloc();
  });
  results = Score(ranker, groups);
  EXPECT_EQ(results[0].status, GroupStatus::kFailed);
  EXPECT_EQ(results[1].status, GroupStatus::kFailed);
  EXPECT_EQ(results[2].status, GroupStatus::kOk);  // it asked for none
}

TEST(ScoreGroupsTest, MeanOfItemsIsByGroup) {
  const FakeRanker ranker;
  std::vector<GroupToScore> groups = {MakeGroup(1), MakeGroup(2)};
  groups[1].aggregation = ItemAggregation::kMean;
  groups[1].target = -1;
  const std::vector<GroupResult> results = Score(ranker, groups);
  EXPECT_THAT(results[0].heads[0].scores, ElementsAre(17, 37));
  EXPECT_THAT(results[1].heads[0].scores, ElementsAre(17, 32));
}

TEST(ScoreGroupsTest, BadGroupsAreNamedAndDoNotTouchTheOthers) {
  const FakeRanker ranker;
  std::vector<GroupToScore> groups(8, MakeGroup(0));
  groups[0].history.clear();
  groups[1].history = {4, 100};
  groups[2].candidates[1] = {3, -1};
  groups[3].target = 100;
  groups[4].user = 5;
  groups[5].candidates[0].clear();
  groups[6].candidates.clear();
  groups[6].target = -1;
  const std::vector<GroupResult> results = Score(ranker, groups);
  const std::vector<std::string> want = {"history is empty",      "history names item 100", "candidate 1 names item -1",
                                         "target names item 100", "unknown user 5",         "candidate 0 has no item",
                                         "nothing to score"};
  for (size_t i = 0; i < want.size(); ++i) {
    EXPECT_EQ(results[i].status, GroupStatus::kInvalidInput) << i;
    EXPECT_THAT(results[i].error, HasSubstr(want[i]));
    EXPECT_THAT(results[i].heads, IsEmpty());
  }
  EXPECT_EQ(results[7].status, GroupStatus::kOk);
}

TEST(ScoreGroupsTest, ANumberThatIsNotFiniteFailsItsGroupOnly) {
  FakeRanker ranker;
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (size_t place = 0; place < 4; ++place) {  // three items of candidates, then the target
      ranker.set_hook([&](absl::Span<const ItemQuery>, std::vector<absl::StatusOr<ItemScores>>* answers) {
        answers->at(0).value()[1][place] = bad;
      });
      const std::vector<GroupResult> results = Score(ranker, {MakeGroup(1), MakeGroup(2)});
      EXPECT_EQ(results[0].status, GroupStatus::kNotFinite) << place;
      EXPECT_THAT(results[0].error, HasSubstr("head second"));
      EXPECT_THAT(results[0].heads, IsEmpty());
      EXPECT_EQ(results[1].status, GroupStatus::kOk);
    }
  }
}

TEST(ScoreGroupsTest, ARankerThatThrowsOrAnswersWronglyGivesNoNumbers) {
  FakeRanker ranker;
  const std::vector<FakeRanker::Hook> hooks = {
      [](auto, auto*) { throw std::bad_alloc(); },
      [](auto, auto* answers) { answers->pop_back(); },
      [](auto, auto* answers) {
        for (auto& answer : *answers) answer = absl::InternalError("lost");
      },
      [](auto, auto* answers) {
        for (auto& answer : *answers) answer->pop_back();
      },
      [](auto, auto* answers) {
        for (auto& answer : *answers) answer->front().pop_back();
      },
  };
  for (size_t i = 0; i < hooks.size(); ++i) {
    ranker.set_hook(hooks[i]);
    for (const GroupResult& result : Score(ranker, {MakeGroup(1), MakeGroup(2)})) {
      EXPECT_EQ(result.status, GroupStatus::kFailed) << i;
      EXPECT_THAT(result.heads, IsEmpty());
      EXPECT_FALSE(result.error.empty());
    }
  }
}

TEST(BlendRankerTest, SumsTheFirstHeadsAndShowsTheParts) {
  const FakeRanker first("first"), second("second");
  const BlendRanker blend(&first, &second);
  const auto answers = blend.Score({ItemQuery{.user = 0, .history = {3}, .items = {1, 2}}});
  ASSERT_TRUE(answers[0].ok());
  EXPECT_THAT(*answers[0], ElementsAre(ElementsAre(26, 46), ElementsAre(13, 23), ElementsAre(13, 23)));
  EXPECT_THAT(blend.heads(), ElementsAre("score", "first", "second"));
}

TEST(BlendRankerTest, AQueryThatOnePartRefusesHasNoBlend) {
  const FakeRanker first("first");
  FakeRanker second("second");
  second.set_hook([](auto, auto* answers) { answers->at(1) = absl::InvalidArgumentError("no"); });
  const auto answers = BlendRanker(&first, &second)
                           .Score({ItemQuery{.history = {3}, .items = {1}}, ItemQuery{.history = {3}, .items = {1}}});
  EXPECT_TRUE(answers[0].ok());
  EXPECT_EQ(answers[1].status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(BlendRankerTest, VersionFollowsBothParts) {
  const FakeRanker a("a"), b("b"), c("c");
  EXPECT_EQ(BlendRanker(&a, &b).version(), BlendRanker(&a, &b).version());
  EXPECT_NE(BlendRanker(&a, &b).version(), BlendRanker(&a, &c).version());
  EXPECT_NE(BlendRanker(&a, &b).version(), BlendRanker(&b, &a).version());
}

TEST(RankerSetTest, UnknownNameIsRefusedWithThoseThereAre) {
  RankerSet set;
  set.Add(std::make_unique<FakeRanker>("one"));
  set.Add(std::make_unique<FakeRanker>("two"));
  EXPECT_EQ((*set.Find("two"))->name(), "two");
  const absl::Status status = set.Find("three").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("one, two"));
}

}  // namespace
}  // namespace sluice::reward
