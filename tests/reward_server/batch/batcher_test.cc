#include "reward_server/batch/batcher.h"

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/sync/notification.h"
#include "common/sync/thread.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/fake_ranker.h"

namespace sluice::reward {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using Answer = absl::StatusOr<std::vector<GroupResult>>;

class BatcherTest : public ::testing::Test {
 protected:
  BatcherTest() {
    options_.max_batch_candidates = 10;
    options_.max_delay = absl::Milliseconds(3);
    options_.max_queued_groups = 6;
    ranker_.set_hook([this](absl::Span<const ItemQuery> queries, auto*) { batches_.push_back(queries.size()); });
  }

  std::unique_ptr<Batcher> Make() {
    return std::make_unique<Batcher>(
        options_, [this] { return now_; }, &metrics_);
  }

  // A request of `groups` groups with `candidates` candidates each, whose ordinals start at `first`. Its answer goes
  // to answers_[slot], where slot is the number of tasks made before.
  ScoreTask Task(int groups, int candidates, uint64_t first = 0) {
    ScoreTask task;
    task.ranker = &ranker_;
    for (int g = 0; g < groups; ++g) {
      GroupToScore group;
      group.ordinal = first + static_cast<uint64_t>(g);
      group.history = {static_cast<int32_t>(first) + g};
      for (int c = 0; c < candidates; ++c) group.candidates.push_back({c});
      task.groups.push_back(group);
    }
    auto slot = std::make_shared<std::optional<Answer>>();
    answers_.push_back(slot);
    task.done = [slot](Answer answer) {
      ASSERT_FALSE(slot->has_value()) << "answered twice";
      *slot = std::move(answer);
    };
    return task;
  }
  bool Answered(size_t i) const { return answers_[i]->has_value(); }
  const Answer& AnswerOf(size_t i) const { return **answers_[i]; }

  BatcherOptions options_;
  Metrics metrics_;
  absl::Time now_ = absl::UnixEpoch() + absl::Hours(1);
  FakeRanker ranker_;
  std::vector<size_t> batches_;  // groups of each batch, as the ranker saw them
  std::vector<std::shared_ptr<std::optional<Answer>>> answers_;
};

TEST_F(BatcherTest, LoneGroupWaitsForTheDelayAndNotLonger) {
  auto batcher = Make();
  EXPECT_EQ(batcher->RunOnce(), absl::InfiniteFuture());
  ASSERT_TRUE(batcher->Submit(Task(1, 2, 5)).ok());
  EXPECT_EQ(batcher->RunOnce(), now_ + absl::Milliseconds(3));
  now_ += absl::Milliseconds(2);
  EXPECT_EQ(batcher->RunOnce(), now_ + absl::Milliseconds(1));
  EXPECT_FALSE(Answered(0));
  now_ += absl::Milliseconds(1);
  EXPECT_EQ(batcher->RunOnce(), absl::InfiniteFuture());
  ASSERT_TRUE(Answered(0));
  EXPECT_THAT(AnswerOf(0)->at(0).heads[0].scores, ElementsAre(5, 15));
}

TEST_F(BatcherTest, GroupsOfSeveralRequestsAreScoredTogether) {
  auto batcher = Make();
  ASSERT_TRUE(batcher->Submit(Task(2, 2, 0)).ok());
  now_ += absl::Milliseconds(1);
  ASSERT_TRUE(batcher->Submit(Task(1, 2, 10)).ok());
  now_ += absl::Milliseconds(2);  // 3 ms after the first, 2 after the second
  batcher->RunOnce();
  EXPECT_THAT(batches_, ElementsAre(3));
  EXPECT_EQ(AnswerOf(0)->at(1).ordinal, 1u);
  EXPECT_EQ(AnswerOf(1)->at(0).ordinal, 10u);
}

TEST_F(BatcherTest, EnoughCandidatesCloseABatchAtOnceAndGroupsStayWhole) {
  auto batcher = Make();
  ASSERT_TRUE(batcher->Submit(Task(3, 4)).ok());  // 12 candidates >= 10: due now; two groups fit
  const absl::Time due = batcher->RunOnce();
  EXPECT_THAT(batches_, ElementsAre(2));
  EXPECT_FALSE(Answered(0));  // its third group is still queued
  EXPECT_EQ(due, now_ + absl::Milliseconds(3));
  now_ = due;
  batcher->RunOnce();
  EXPECT_THAT(batches_, ElementsAre(2, 1));
  ASSERT_TRUE(Answered(0));
  for (uint64_t g = 0; g < 3; ++g) EXPECT_EQ(AnswerOf(0)->at(g).ordinal, g);
}

TEST_F(BatcherTest, AGroupLargerThanABatchIsABatchOfItsOwn) {
  auto batcher = Make();
  ASSERT_TRUE(batcher->Submit(Task(1, 25)).ok());
  ASSERT_TRUE(batcher->Submit(Task(1, 1)).ok());
  batcher->RunOnce();
  EXPECT_THAT(batches_, ElementsAre(1));
  EXPECT_EQ(AnswerOf(0)->at(0).heads[0].scores.size(), 25u);
  EXPECT_FALSE(Answered(1));
  batcher->Close();
  batcher->RunOnce();
}

TEST_F(BatcherTest, FullQueueRefusesWithAHintAndTakesAgainLater) {
  auto batcher = Make();
  ASSERT_TRUE(batcher->Submit(Task(4, 1)).ok());
  const absl::Status refused = batcher->Submit(Task(3, 1));  // 4 + 3 > 6
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_GE(batcher->RetryHint(), absl::Milliseconds(3));
  EXPECT_LE(batcher->RetryHint(), absl::Seconds(2));
  ASSERT_TRUE(batcher->Submit(Task(2, 1)).ok());  // 4 + 2 = 6 fits
  now_ += absl::Milliseconds(3);
  batcher->RunOnce();
  EXPECT_EQ(batcher->queued_groups(), 0);
  ASSERT_TRUE(batcher->Submit(Task(3, 1)).ok());
  EXPECT_FALSE(Answered(1));  // the refused one never is
  batcher->Close();
  batcher->RunOnce();
  EXPECT_FALSE(Answered(1));
}

TEST_F(BatcherTest, HintGrowsWithTheTimeThatTheQueueTakes) {
  auto batcher = Make();
  ranker_.set_hook([this](auto queries, auto*) { now_ += absl::Milliseconds(100) * queries.size(); });
  ASSERT_TRUE(batcher->Submit(Task(1, 1)).ok());
  now_ += absl::Milliseconds(3);
  batcher->RunOnce();  // 100 ms a group
  ASSERT_TRUE(batcher->Submit(Task(6, 1)).ok());
  EXPECT_EQ(batcher->RetryHint(), absl::Milliseconds(300));  // half of six groups
  batcher->Close();
  batcher->RunOnce();
}

TEST_F(BatcherTest, RequestsThatCanNeverFitAreTheCallersMistake) {
  auto batcher = Make();
  EXPECT_EQ(batcher->Submit(Task(7, 1)).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(batcher->Submit(Task(0, 1)).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(BatcherTest, ExpiredAndCancelledRequestsLeaveBeforeComputing) {
  auto batcher = Make();
  ScoreTask expired = Task(1, 1), cancelled = Task(1, 1), alive = Task(1, 1);
  expired.deadline = now_ + absl::Milliseconds(2);
  cancelled.cancelled = [] { return true; };
  alive.deadline = now_ + absl::Milliseconds(4);
  ASSERT_TRUE(batcher->Submit(std::move(expired)).ok());
  ASSERT_TRUE(batcher->Submit(std::move(cancelled)).ok());
  ASSERT_TRUE(batcher->Submit(std::move(alive)).ok());
  now_ += absl::Milliseconds(3);
  batcher->RunOnce();
  EXPECT_THAT(batches_, ElementsAre(1));
  EXPECT_EQ(AnswerOf(0).status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(AnswerOf(1).status().code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(AnswerOf(2).ok());
  const std::string page = metrics_.Text();
  EXPECT_THAT(page, HasSubstr("sluice_reward_groups_total{outcome=\"expired\"} 1"));
  EXPECT_THAT(page, HasSubstr("sluice_reward_groups_total{outcome=\"cancelled\"} 1"));
  EXPECT_THAT(page, HasSubstr("sluice_reward_groups_total{outcome=\"ok\"} 1"));
}

TEST_F(BatcherTest, ARequestThatExpiresHalfWayIsNotAnsweredInPart) {
  auto batcher = Make();
  ScoreTask task = Task(3, 4);
  task.deadline = now_ + absl::Milliseconds(3);
  ASSERT_TRUE(batcher->Submit(std::move(task)).ok());
  batcher->RunOnce();  // two of its groups
  now_ += absl::Milliseconds(3);
  batcher->RunOnce();
  EXPECT_THAT(batches_, ElementsAre(2));
  EXPECT_EQ(AnswerOf(0).status().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(BatcherTest, RequestsForDifferentRankersShareABatchButNotACall) {
  auto batcher = Make();
  const FakeRanker other("other");
  ScoreTask task = Task(1, 1, 7);
  task.ranker = &other;
  ASSERT_TRUE(batcher->Submit(Task(2, 1)).ok());
  ASSERT_TRUE(batcher->Submit(std::move(task)).ok());
  now_ += absl::Milliseconds(3);
  batcher->RunOnce();
  EXPECT_THAT(batches_, ElementsAre(2));
  EXPECT_TRUE(Answered(0));
  EXPECT_TRUE(Answered(1));
}

TEST_F(BatcherTest, CloseRefusesNewRequestsAndStillAnswersQueuedOnes) {
  auto batcher = Make();
  ASSERT_TRUE(batcher->Submit(Task(1, 1)).ok());
  batcher->Close();
  EXPECT_EQ(batcher->Submit(Task(1, 1)).code(), absl::StatusCode::kUnavailable);
  batcher->Run();  // drains without waiting for the delay, then returns
  EXPECT_TRUE(AnswerOf(0).ok());
  EXPECT_FALSE(Answered(1));
}

TEST_F(BatcherTest, DestructionAnswersWhatWasNeverComputed) {
  auto batcher = Make();
  ASSERT_TRUE(batcher->Submit(Task(3, 4)).ok());
  batcher->RunOnce();  // two groups of three
  batcher.reset();
  EXPECT_EQ(AnswerOf(0).status().code(), absl::StatusCode::kUnavailable);
}

TEST(BatcherThreadsTest, EveryRequestIsAnsweredOnceUnderContention) {
  Metrics metrics;
  const FakeRanker ranker;
  BatcherOptions options;
  options.max_batch_candidates = 16;
  options.max_delay = absl::ZeroDuration();
  options.max_queued_groups = 1000;
  Batcher batcher(options, MonotonicClock(), &metrics);
  constexpr int kClients = 4, kRequests = 200;
  std::atomic<int> answered{0}, refused{0}, wrong{0};
  {
    std::vector<Thread> workers, clients;
    for (int w = 0; w < 3; ++w) workers.push_back(StartThread("worker", [&] { batcher.Run(); }));
    Notification start;
    for (int c = 0; c < kClients; ++c) {
      clients.push_back(StartThread("client", [&, c] {
        start.Wait();
        for (int r = 0; r < kRequests; ++r) {
          ScoreTask task;
          task.ranker = &ranker;
          for (int g = 0; g < 1 + r % 5; ++g) {
            GroupToScore group;
            group.ordinal = static_cast<uint64_t>(g);
            group.history = {c};
            group.candidates = {{g}, {g + 1}, {g + 2}};
            task.groups.push_back(group);
          }
          task.done = [&, c](Answer answer) {
            for (size_t g = 0; g < answer->size(); ++g) {
              const GroupResult& result = answer->at(g);
              const bool right = result.status == GroupStatus::kOk && result.ordinal == g &&
                                 result.heads[0].scores[1] == static_cast<float>(10 * (g + 1) + c);
              wrong += right ? 0 : 1;
            }
            ++answered;
          };
          refused += batcher.Submit(std::move(task)).ok() ? 0 : 1;
        }
      }));
    }
    start.Notify();
    clients.clear();  // joins
    batcher.Close();
  }
  EXPECT_EQ(answered + refused, kClients * kRequests);
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(batcher.queued_groups(), 0);
}

TEST(BatcherOptionsTest, BadValuesAreNamed) {
  BatcherOptions options;
  options.max_queued_groups = 0;
  EXPECT_THAT(std::string(options.Validate().message()), HasSubstr("max_queued_groups"));
  options = {};
  options.max_delay = absl::Seconds(-1);
  EXPECT_THAT(std::string(options.Validate().message()), HasSubstr("max_delay"));
  options = {};
  options.max_batch_candidates = 0;
  EXPECT_THAT(std::string(options.Validate().message()), HasSubstr("max_batch_candidates"));
}

}  // namespace
}  // namespace sluice::reward
