#include "reward_server/ranker/cooccurrence_ranker.h"

#include <cmath>
#include <string>
#include <vector>

#include "common/catalog/dataset.h"
#include "gtest/gtest.h"

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
