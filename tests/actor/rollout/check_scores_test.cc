#include "actor/rollout/check_scores.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>

namespace sluice::actor {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

// Two groups of two completions and one negative each, and the right answer to them.
class CheckScoresTest : public testing::Test {
 protected:
  CheckScoresTest() {
    request_.catalog_version = "catalog";
    response_.catalog_version = "catalog";
    response_.ranker_version = "ranker-1";
    for (uint64_t ordinal : {7, 8}) {
      request_.groups.push_back({ordinal, 2, 0, {1}, 5, {{1}, {2, 3}, {4}}});
      response_.groups.push_back(
          {ordinal, 2, GroupScoreStatus::kOk, "", {{"click", {0.1f, 0.2f, 0.3f}, 0.4f}, {"order", {1, 2, 3}, 4}}});
      groups_.emplace_back();
      groups_.back().completions.resize(2);
      groups_.back().negative_leaves = {9};
    }
  }

  void Apply(const absl::StatusOr<RewardResponse>& response) {
    std::vector<ScoredGroup*> pointers;
    for (ScoredGroup& group : groups_) pointers.push_back(&group);
    ApplyScores(request_, response, absl::MakeConstSpan(pointers));
  }

  // Applies the answer after `damage`; returns the status of both groups, and that neither kept a number.
  void ExpectBothInvalid(const std::function<void(RewardResponse*)>& damage, const std::string& message) {
    RewardResponse response = response_;
    damage(&response);
    Apply(response);
    for (const ScoredGroup& group : groups_) {
      EXPECT_EQ(group.score_status, ScoreStatus::kInvalid);
      EXPECT_THAT(group.score_error, HasSubstr(message));
      EXPECT_THAT(group.heads, IsEmpty());
    }
  }
  void ExpectSecondIs(ScoreStatus status, const std::function<void(GroupScores*)>& damage, const std::string& message) {
    groups_[0].heads.clear();
    RewardResponse response = response_;
    damage(&response.groups[1]);
    Apply(response);
    EXPECT_EQ(groups_[0].score_status, ScoreStatus::kOk);
    EXPECT_THAT(groups_[0].heads, SizeIs(2));
    EXPECT_EQ(groups_[1].score_status, status);
    EXPECT_THAT(groups_[1].score_error, HasSubstr(message));
    EXPECT_THAT(groups_[1].heads, IsEmpty());
  }

  RewardRequest request_;
  RewardResponse response_;
  std::vector<ScoredGroup> groups_;
};

TEST_F(CheckScoresTest, ScoresOfItemsLeftOutAreAllThereOrAbsent) {
  for (GroupToScore& group : request_.groups) group.leave_out = {1, 6};
  for (GroupScores& group : response_.groups) {
    for (CandidateScores& head : group.heads) head.left_out = {0.5f, 0.75f};
  }
  Apply(response_);
  EXPECT_THAT(groups_[0].history_items, ElementsAre(1, 6));
  EXPECT_THAT(groups_[0].heads[1].history_scores, ElementsAre(0.5f, 0.75f));
  for (ScoredGroup& group : groups_) {
    group.history_items.clear();
    group.heads.clear();
  }
  ExpectSecondIs(
      ScoreStatus::kInvalid, [](GroupScores* group) { group->heads[0].left_out.pop_back(); },
      "want scores of 2 items left out of the history, got 1");
  ExpectSecondIs(
      ScoreStatus::kInvalid,
      [](GroupScores* group) { group->heads[1].left_out[1] = std::numeric_limits<float>::infinity(); },
      "the score of history item 1 left out is inf");
  ExpectSecondIs(
      ScoreStatus::kInvalid, [](GroupScores* group) { group->heads[1].left_out.clear(); },
      "head 'order' has scores of 0 items left out of the history, head 'click' of 2");
  EXPECT_THAT(groups_[1].history_items, IsEmpty());
}

// A server of a release without leave-one-out scores: the group is scored, its history is not.
TEST_F(CheckScoresTest, AServerThatCannotLeaveOutStillScores) {
  for (GroupToScore& group : request_.groups) group.leave_out = {1, 6};
  Apply(response_);
  EXPECT_EQ(groups_[0].score_status, ScoreStatus::kOk);
  EXPECT_THAT(groups_[0].history_items, IsEmpty());
  EXPECT_THAT(groups_[0].heads[0].history_scores, IsEmpty());
}

TEST_F(CheckScoresTest, ARightAnswerIsSplitIntoCompletionsTargetAndNegatives) {
  Apply(response_);
  for (const ScoredGroup& group : groups_) {
    EXPECT_EQ(group.score_status, ScoreStatus::kOk);
    EXPECT_EQ(group.ranker_version, "ranker-1");
    ASSERT_THAT(group.heads, SizeIs(2));
    EXPECT_EQ(group.heads[0].name, "click");
    EXPECT_THAT(group.heads[0].completion_scores, ElementsAre(0.1f, 0.2f));
    EXPECT_THAT(group.heads[0].negative_scores, ElementsAre(0.3f));
    EXPECT_EQ(group.heads[0].target_score, 0.4f);
    EXPECT_EQ(group.heads[1].name, "order");
  }
}

TEST_F(CheckScoresTest, AnAnswerThatIsDoubtfulAsAWholeScoresNobody) {
  ExpectBothInvalid([](RewardResponse* r) { r->ranker_version.clear(); }, "no ranker version");
  ExpectBothInvalid([](RewardResponse* r) { r->catalog_version = "other"; }, "got catalog other");
  ExpectBothInvalid([](RewardResponse* r) { r->groups.pop_back(); }, "want scores of 2 groups, got 1");
  ExpectBothInvalid([](RewardResponse* r) { r->groups[1].ordinal = 9; }, "got ordinal 9");
  ExpectBothInvalid([](RewardResponse* r) { r->groups[0].attempt = 1; }, "got ordinal 7 attempt 1");
  ExpectBothInvalid([](RewardResponse* r) { std::swap(r->groups[0], r->groups[1]); }, "at position 0");
}

TEST_F(CheckScoresTest, ABadGroupDoesNotHurtItsNeighbour) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  ExpectSecondIs(
      ScoreStatus::kInvalid, [](GroupScores* g) { g->heads.clear(); }, "no head");
  ExpectSecondIs(
      ScoreStatus::kInvalid, [](GroupScores* g) { g->heads[1].scores.pop_back(); }, "want 3 scores, got 2");
  ExpectSecondIs(
      ScoreStatus::kInvalid, [&](GroupScores* g) { g->heads[1].scores[2] = kNan; }, "candidate 2 is nan");
  ExpectSecondIs(
      ScoreStatus::kInvalid, [&](GroupScores* g) { g->heads[0].target = -kNan; }, "the target is");
  ExpectSecondIs(
      ScoreStatus::kInvalid, [](GroupScores* g) { g->heads[1].head = "click"; }, "doubled");
  ExpectSecondIs(
      ScoreStatus::kInvalid, [](GroupScores* g) { g->status = GroupScoreStatus::kNotFinite; }, "not finite");
  ExpectSecondIs(
      ScoreStatus::kRejected,
      [](GroupScores* g) {
        g->status = GroupScoreStatus::kInvalidInput;
        g->error = "unknown item 17";
      },
      "unknown item 17");
  ExpectSecondIs(
      ScoreStatus::kUnavailable, [](GroupScores* g) { g->status = GroupScoreStatus::kFailed; }, "failed");
}

TEST_F(CheckScoresTest, ATargetThatWasNotAskedIsNotRead) {
  request_.groups[0].target = -1;
  response_.groups[0].heads[0].target = std::numeric_limits<float>::infinity();
  Apply(response_);
  EXPECT_EQ(groups_[0].score_status, ScoreStatus::kOk);
  EXPECT_EQ(groups_[0].heads[0].target_score, 0);
}

TEST_F(CheckScoresTest, AFailedCallIsAStatusOfEveryGroup) {
  struct Case {
    absl::Status status;
    ScoreStatus want;
  };
  for (const Case& test : std::vector<Case>{{absl::UnavailableError("refused"), ScoreStatus::kUnavailable},
                                            {absl::DeadlineExceededError("late"), ScoreStatus::kUnavailable},
                                            {absl::InternalError("bug"), ScoreStatus::kUnavailable},
                                            {absl::InvalidArgumentError("bad"), ScoreStatus::kRejected},
                                            {absl::FailedPreconditionError("catalog"), ScoreStatus::kRejected}}) {
    Apply(test.status);
    for (const ScoredGroup& group : groups_) {
      EXPECT_EQ(group.score_status, test.want) << test.status;
      EXPECT_THAT(group.score_error, HasSubstr(std::string(test.status.message())));
      EXPECT_THAT(group.heads, IsEmpty());
    }
  }
}

}  // namespace
}  // namespace sluice::actor
