#include "learner/ledger/reward_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace sluice::learner {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr int kCandidates = 6;  // 4 completions, 2 negatives

// A ranker of known mind: what it thinks of an item for a user, and what a sick one makes of a group's scores.
float Mind(int32_t user, int32_t leaf) { return static_cast<float>((user * 7 + leaf * 5) % 23); }
using Sickness = std::function<void(std::vector<float>*)>;

class RewardWatchTest : public testing::Test {
 protected:
  static Prompt PromptOf(int32_t user) {
    Prompt prompt;
    prompt.ordinal = static_cast<uint64_t>(user) + 100;
    prompt.user = user;
    prompt.history = {1, 2};
    prompt.target = 9;
    return prompt;
  }

  ScoredGroup Scored(const Prompt& prompt, const std::vector<int32_t>& leaves) const {
    ScoredGroup group;
    group.ordinal = prompt.ordinal;
    group.score_status = ScoreStatus::kOk;
    group.ranker_version = version_;
    std::vector<float> scores;
    for (const int32_t leaf : leaves) scores.push_back(Mind(prompt.user, leaf));
    if (sickness_) sickness_(&scores);
    ScoreHead head{"score", {}, Mind(prompt.user, prompt.target), scores};
    group.heads = {ScoreHead{"other", {}, 1, std::vector<float>(scores.size(), 1)}, head};
    return group;
  }

  // Sampled and scored; what the watch left of it.
  ScoredGroup Deliver(int32_t user) {
    const Prompt prompt = PromptOf(user);
    ScoredGroup group = Scored(prompt, {user, user + 1, user + 2, user + 3, user + 4, user + 5});
    for (int i = 0; i < 4; ++i) {
      Completion completion;
      completion.leaf = user + i;
      group.completions.push_back(completion);
    }
    group.negative_leaves = {user + 4, user + 5};
    for (ScoreHead& head : group.heads) {
      head.completion_scores.assign(head.negative_scores.begin(), head.negative_scores.begin() + 4);
      head.negative_scores.erase(head.negative_scores.begin(), head.negative_scores.begin() + 4);
    }
    watch_->Inspect(prompt, absl::ZeroDuration(), now_ += absl::Milliseconds(100), &group);
    return group;
  }
  ScoredGroup DeliverFailed(ScoreStatus status, const std::string& error) {
    ScoredGroup group;
    group.score_status = status;
    group.score_error = error;
    watch_->Inspect(PromptOf(1), absl::ZeroDuration(), now_ += absl::Milliseconds(100), &group);
    return group;
  }
  void Begin() {
    for (int32_t user = 0; user < 10; ++user) ASSERT_EQ(Deliver(user).score_status, ScoreStatus::kOk);
    ASSERT_THAT(watch_->TakeNews(), ElementsAre("scores are of ranker version v1"));
  }
  // The canary's way to the ranker and back; false: it was not due.
  bool AskCanary() {
    const std::vector<Prompt> prompts = watch_->NextCanary(now_);
    for (size_t i = 0; i < prompts.size(); ++i) {
      EXPECT_THAT(prompts[i].leaves, SizeIs(kCandidates));
      ScoredGroup answer = Scored(prompts[i], prompts[i].leaves);
      EXPECT_EQ(watch_->TakeCanary(std::move(answer), now_), i + 1 == prompts.size());
    }
    return !prompts.empty();
  }
  RewardState state() const { return watch_->health().state(); }

  absl::Time now_ = absl::UnixEpoch() + absl::Hours(1);
  std::string version_ = "v1";
  Sickness sickness_;
  RewardWatchOptions options_;
  std::optional<RewardWatch> watch_{std::in_place, options_, now_};
};

TEST(RankCorrelationTest, IsOneForTheSameOrderAndTiesShareTheirRank) {
  EXPECT_DOUBLE_EQ(RankCorrelation({1, 2, 3}, {10, 20, 300}), 1);
  EXPECT_DOUBLE_EQ(RankCorrelation({1, 2, 3}, {3, 2, 1}), -1);
  EXPECT_DOUBLE_EQ(RankCorrelation({1, 2, 3}, {5, 5, 5}), 0);
  EXPECT_DOUBLE_EQ(RankCorrelation({}, {}), 0);
  // Ranks 0, 1.5, 1.5, 3 against 0, 1, 2, 3: covariance 4.5, variances 4.5 and 5.
  EXPECT_NEAR(RankCorrelation({1, 2, 2, 3}, {1, 2, 3, 4}), 4.5 / std::sqrt(4.5 * 5), 1e-12);
}

TEST_F(RewardWatchTest, AHealthyRankersCanaryIsAskedAtIntervalsAndChangesNothing) {
  Begin();
  EXPECT_FALSE(AskCanary());  // not yet
  for (int i = 0; i < 5; ++i) {
    now_ += absl::Seconds(15);
    EXPECT_TRUE(AskCanary());
    EXPECT_FALSE(AskCanary());
  }
  EXPECT_EQ(state(), RewardState::kHealthy);
  EXPECT_EQ(watch_->Trouble(), "");
  EXPECT_THAT(watch_->TakeNews(), IsEmpty());
}

TEST_F(RewardWatchTest, TheCanaryIsMadeOfTheFirstGroupsThatSayAnythingOfAnOrder) {
  sickness_ = [](std::vector<float>* scores) { std::fill(scores->begin(), scores->end(), 0.f); };
  for (int32_t user = 0; user < 30; ++user) Deliver(user);  // 0 and the target's: two values
  sickness_ = nullptr;
  for (int32_t user = 3; user < 6; ++user) Deliver(user);
  now_ += absl::Hours(1);
  EXPECT_THAT(watch_->NextCanary(now_), IsEmpty());  // three groups are no canary yet
  for (int32_t user = 6; user < 16; ++user) Deliver(user);
  const std::vector<Prompt> prompts = watch_->NextCanary(now_);
  ASSERT_THAT(prompts, SizeIs(8));
  EXPECT_EQ(prompts[0].user, 3);
  EXPECT_EQ(prompts[0].ordinal, 0u);
  EXPECT_THAT(prompts[0].history, ElementsAre(1, 2));
  EXPECT_THAT(prompts[0].leaves, ElementsAre(3, 4, 5, 6, 7, 8));
}

// What no echo of ids shows.
TEST_F(RewardWatchTest, WrongAnswersInTheRightShapeAreAnOutageAndAreNotBelieved) {
  const std::vector<std::pair<std::string, Sickness>> kinds = {
      {"turned", [](std::vector<float>* s) { std::rotate(s->begin(), s->begin() + 2, s->end()); }},
      {"reversed", [](std::vector<float>* s) { std::reverse(s->begin(), s->end()); }},
      {"sorted", [](std::vector<float>* s) { std::sort(s->begin(), s->end()); }},
      {"all alike", [](std::vector<float>* s) { std::fill(s->begin(), s->end(), 0.5f); }},
      {"out of range",
       [](std::vector<float>* s) {
         for (float& one : *s) one *= 1000;
       }},
  };
  for (const auto& [name, sickness] : kinds) {
    SCOPED_TRACE(name);
    watch_.emplace(options_, now_);
    sickness_ = nullptr;
    Begin();
    now_ += absl::Seconds(15);
    sickness_ = sickness;
    EXPECT_TRUE(AskCanary());
    EXPECT_EQ(state(), RewardState::kOutage);
    EXPECT_THAT(watch_->Trouble(), HasSubstr("outage: the canary is out of range: groups scored before"));
    const ScoredGroup group = Deliver(3);
    EXPECT_EQ(group.score_status, ScoreStatus::kInvalid);
    EXPECT_THAT(group.heads, IsEmpty());
    EXPECT_THAT(group.score_error, HasSubstr("not believed"));

    now_ += absl::Seconds(5);
    watch_->Tick(now_);
    ASSERT_EQ(state(), RewardState::kProbing);
    EXPECT_EQ(watch_->health().MaxLeases(8), 0);  // the canary first
    EXPECT_TRUE(AskCanary());                     // still sick
    EXPECT_EQ(state(), RewardState::kOutage);

    sickness_ = nullptr;
    now_ += absl::Seconds(10);
    watch_->Tick(now_);
    EXPECT_TRUE(AskCanary());
    EXPECT_EQ(state(), RewardState::kProbing);
    EXPECT_EQ(watch_->health().MaxLeases(8), 1);
    EXPECT_EQ(Deliver(3).score_status, ScoreStatus::kOk);
    EXPECT_TRUE(AskCanary());
    EXPECT_TRUE(AskCanary());  // 8 + 1 + 8 + 8 groups in a row
    EXPECT_EQ(state(), RewardState::kHealthy);
  }
}

TEST_F(RewardWatchTest, EqualScoresInManyGroupsAskTheCanaryAtOnceAndMayBeRight) {
  Begin();
  sickness_ = [](std::vector<float>* scores) { std::fill(scores->begin(), scores->end(), 0.f); };
  const auto deliver = [this](int32_t user) {
    ScoredGroup group = Scored(PromptOf(user), {1, 2, 3});
    for (ScoreHead& head : group.heads) head.target_score = 0;
    watch_->Inspect(PromptOf(user), absl::ZeroDuration(), now_, &group);
  };
  for (int i = 0; i < 7; ++i) deliver(20);
  EXPECT_THAT(watch_->NextCanary(now_), IsEmpty());
  deliver(20);
  sickness_ = nullptr;  // those users have no events: the ranker is well
  EXPECT_TRUE(AskCanary());
  EXPECT_EQ(state(), RewardState::kHealthy);
}

TEST_F(RewardWatchTest, AnotherVersionIsRefusedAndIsAnOutageWhenItStays) {
  Begin();
  version_ = "v2";
  ScoredGroup group = Deliver(3);
  EXPECT_EQ(group.score_status, ScoreStatus::kInvalid);
  EXPECT_THAT(group.heads, IsEmpty());
  EXPECT_THAT(group.score_error, HasSubstr("of ranker version v2, the job's so far of v1"));
  for (int i = 0; i < 160; ++i) Deliver(3);
  EXPECT_EQ(state(), RewardState::kOutage);
  EXPECT_THAT(watch_->Trouble(), HasSubstr("version v2"));
  now_ += absl::Seconds(5);
  watch_->Tick(now_);
  EXPECT_TRUE(AskCanary());
  EXPECT_EQ(state(), RewardState::kOutage);
  version_ = "v1";
  now_ += absl::Seconds(10);
  watch_->Tick(now_);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(AskCanary());
  EXPECT_EQ(state(), RewardState::kHealthy);
}

TEST_F(RewardWatchTest, AVersionThatIsFollowedMakesTheCanaryAnew) {
  options_.follow_versions = true;
  watch_.emplace(options_, now_);
  Begin();
  version_ = "v2";
  sickness_ = [](std::vector<float>* s) { std::reverse(s->begin(), s->end()); };  // another mind
  now_ += absl::Seconds(15);
  EXPECT_TRUE(AskCanary());  // the canary itself meets the new one
  EXPECT_EQ(state(), RewardState::kHealthy);
  EXPECT_THAT(watch_->TakeNews(), ElementsAre("ranker version v2 follows v1: the canary is made anew"));
  for (int32_t user = 0; user < 10; ++user) EXPECT_EQ(Deliver(user).score_status, ScoreStatus::kOk);
  now_ += absl::Seconds(15);
  EXPECT_TRUE(AskCanary());
  EXPECT_EQ(state(), RewardState::kHealthy);
}

TEST_F(RewardWatchTest, AFollowedVersionIsBelievedAgainAfterAnOutageOfItsForerunner) {
  options_.follow_versions = true;
  watch_.emplace(options_, now_);
  Begin();
  now_ += absl::Seconds(15);
  sickness_ = [](std::vector<float>* s) { std::reverse(s->begin(), s->end()); };
  EXPECT_TRUE(AskCanary());
  EXPECT_EQ(state(), RewardState::kOutage);
  version_ = "v2";
  now_ += absl::Seconds(5);
  watch_->Tick(now_);
  EXPECT_TRUE(AskCanary());  // says that there is a new ranker, which has no canary yet
  EXPECT_EQ(watch_->health().MaxLeases(8), 1);
  for (int32_t user = 0; user < 20; ++user) EXPECT_EQ(Deliver(user).score_status, ScoreStatus::kOk);
  EXPECT_EQ(state(), RewardState::kHealthy);
}

TEST_F(RewardWatchTest, FailuresOfEveryKindCountAndEachMoveIsNewsWithItsCause) {
  Begin();
  for (int i = 0; i < 60; ++i) {
    DeliverFailed(ScoreStatus::kUnavailable, "connection refused");
    DeliverFailed(ScoreStatus::kInvalid, "head 'score': want 6 scores, got 5");
    DeliverFailed(ScoreStatus::kRejected, "the ranker refused the group");
  }
  EXPECT_EQ(state(), RewardState::kOutage);
  const std::vector<std::string> news = watch_->TakeNews();
  ASSERT_FALSE(news.empty());
  EXPECT_THAT(news.back(), HasSubstr("to outage: "));
  EXPECT_EQ(watch_->entered()[static_cast<size_t>(RewardState::kOutage)], 1u);
  EXPECT_EQ(watch_->entered()[static_cast<size_t>(RewardState::kHealthy)], 0u);
}

// Its answers used to be waited for until its lease was over, and an outage with them.
TEST_F(RewardWatchTest, ACanaryIsJudgedByWhatItWasWhenItWent) {
  for (int32_t user = 0; user < 5; ++user) Deliver(user);
  now_ += absl::Seconds(15);
  const std::vector<Prompt> prompts = watch_->NextCanary(now_);
  ASSERT_THAT(prompts, SizeIs(5));
  for (int32_t user = 5; user < 10; ++user) Deliver(user);
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(watch_->TakeCanary(Scored(prompts[i], prompts[i].leaves), now_), i == 4);
  }
  now_ += absl::Seconds(15);
  EXPECT_THAT(watch_->NextCanary(now_), SizeIs(8));
  EXPECT_EQ(state(), RewardState::kHealthy);
}

TEST_F(RewardWatchTest, ACanaryThatAFollowedVersionOvertookSaysNothing) {
  options_.follow_versions = true;
  watch_.emplace(options_, now_);
  Begin();
  now_ += absl::Seconds(15);
  const std::vector<Prompt> prompts = watch_->NextCanary(now_);
  std::vector<ScoredGroup> answers;
  for (const Prompt& prompt : prompts) answers.push_back(Scored(prompt, prompt.leaves));
  version_ = "v2";
  EXPECT_EQ(Deliver(3).score_status, ScoreStatus::kOk);
  for (size_t i = 0; i < answers.size(); ++i) {
    EXPECT_EQ(watch_->TakeCanary(std::move(answers[i]), now_), i + 1 == answers.size());
  }
  EXPECT_THAT(watch_->TakeNews(), ElementsAre("ranker version v2 follows v1: the canary is made anew"));
  EXPECT_EQ(state(), RewardState::kHealthy);
}

TEST_F(RewardWatchTest, ACanaryThatIsLostIsAskedAgainAndSaysNothing) {
  Begin();
  now_ += absl::Seconds(15);
  EXPECT_THAT(watch_->NextCanary(now_), SizeIs(8));
  EXPECT_THAT(watch_->NextCanary(now_), IsEmpty());  // one at a time
  watch_->LoseCanary(now_);
  EXPECT_EQ(state(), RewardState::kHealthy);
  now_ += absl::Seconds(15);
  EXPECT_TRUE(AskCanary());
}

}  // namespace
}  // namespace sluice::learner
