#include "reward_server/ranker/cooccurrence_ranker.h"

#include <cmath>
#include <string>
#include <vector>

#include "common/catalog/dataset.h"
#include "gtest/gtest.h"
#include "reward_server/ranker/score_groups.h"

namespace sluice::reward {
namespace {

// Items 0 to 4. User 0 took 0, 1, 2 in training; user 1 took 0, 3; each then one validation and one test event.
Dataset::Contents MakeContents() {
  Dataset::Contents contents;
  contents.name = "tiny";
  contents.first_event = {0, 5, 9};
  contents.event_item = {0, 1, 2, 3, 4, /**/ 0, 3, 1, 2};
  const SplitLabel train = SplitLabel::kTrain, validation = SplitLabel::kValidation, test = SplitLabel::kTest;
  contents.event_split = {train, train, train, validation, test, /**/ train, train, validation, test};
  contents.user_names = {"a", "b"};
  for (int item = 0; item < 5; ++item) {
    contents.item_names.push_back(std::to_string(item));
    contents.item_codes.push_back(item);
  }
  contents.levels = 1;
  contents.codes = 5;
  return contents;
}

std::vector<float> ScoreOf(const Ranker& ranker, int32_t user, std::vector<int32_t> history,
                           std::vector<int32_t> items) {
  const ItemQuery query = {.user = user, .history = std::move(history), .items = std::move(items)};
  return ranker.Score({query})[0]->front();
}

TEST(CooccurrenceRankerTest, ScoreIsTheLogarithmOfTheRule) {
  const CooccurrenceRanker ranker(Dataset::FromContents(MakeContents()).value());
  // Training pairs: 0-1 and 1-2 at distance 1, 0-2 at distance 2 (user 0), 0-3 at distance 1 (user 1).
  // After history 0: item 2 has co 1/2 and one event, item 3 has co 1 and one event, item 4 has none.
  const std::vector<float> scores = ScoreOf(ranker, -1, {0}, {2, 3, 4});
  EXPECT_NEAR(scores[0], std::log(0.5 / std::sqrt(6.0) + 0.003), 1e-5);
  EXPECT_NEAR(scores[1], std::log(1.0 / std::sqrt(6.0) + 0.003), 1e-5);
  EXPECT_NEAR(scores[2], std::log(0.003), 1e-5);
}

TEST(CooccurrenceRankerTest, OwnEventsOfTheUserAreNotRemembered) {
  // For user 0 the pair 0-2 exists only through themselves; the pair 0-3 is user 1's.
  const CooccurrenceRanker ranker(Dataset::FromContents(MakeContents()).value());
  const std::vector<float> own = ScoreOf(ranker, 0, {0}, {2, 3});
  EXPECT_NEAR(own[0], std::log(0.003), 1e-5);
  EXPECT_GT(own[1], std::log(0.3));
  const std::vector<float> other = ScoreOf(ranker, 1, {0}, {2, 3});
  EXPECT_GT(other[0], std::log(0.1));
  EXPECT_NEAR(other[1], std::log(0.003), 1e-5);
}

// An item of the history scores by what other users did around the rest of the history: as if the user had no events at
// all, which a data set without them shows.
TEST(CooccurrenceRankerTest, AnItemLeftOutOfTheHistoryIsScoredWithoutTheUsersOwnEvents) {
  Dataset::Contents with = MakeContents();
  const SplitLabel train = SplitLabel::kTrain;
  with.first_event = {0, 5, 9, 13};
  for (const int32_t item : {2, 0, 1, 4}) with.event_item.push_back(item);
  for (int i = 0; i < 4; ++i) with.event_split.push_back(train);
  with.user_names.push_back("c");
  Dataset::Contents without = MakeContents();
  const CooccurrenceRanker ranker(Dataset::FromContents(with).value());
  const CooccurrenceRanker strangers(Dataset::FromContents(without).value());
  GroupToScore group;
  group.user = 2;
  group.history = {2, 0, 1, 0};
  group.candidates = {{3}};
  group.leave_out = {0, 1, 2};
  const GroupToScore* const asked = &group;
  const std::vector<GroupResult> results = ScoreGroups(ranker, {&asked, 1});
  ASSERT_EQ(results[0].status, GroupStatus::kOk) << results[0].error;
  const std::vector<float>& left_out = results[0].heads[0].left_out;
  ASSERT_EQ(left_out.size(), 3u);
  EXPECT_NEAR(left_out[0], ScoreOf(strangers, -1, {2, 1}, {0})[0], 1e-5);
  EXPECT_NEAR(left_out[1], ScoreOf(strangers, -1, {2, 0, 0}, {1})[0], 1e-5);
  EXPECT_NEAR(left_out[2], ScoreOf(strangers, -1, {0, 1, 0}, {2})[0], 1e-5);
  EXPECT_GT(left_out[0], std::log(0.1));  // user 0's pairs are there
}

TEST(CooccurrenceRankerTest, VersionFollowsTrainingEventsOnly) {
  const std::string version = CooccurrenceRanker(Dataset::FromContents(MakeContents()).value()).version();
  Dataset::Contents other_test = MakeContents(), other_training = MakeContents();
  other_test.event_item[4] = 0;
  other_training.event_item[2] = 4;
  EXPECT_EQ(CooccurrenceRanker(Dataset::FromContents(other_test).value()).version(), version);
  EXPECT_NE(CooccurrenceRanker(Dataset::FromContents(other_training).value()).version(), version);
}

}  // namespace
}  // namespace sluice::reward
