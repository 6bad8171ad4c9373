#include "actor/rollout/job_backoff.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace sluice::actor {
namespace {

TEST(FailureLogTest, OtherNumbersAreNoOtherCause) {
  FailureLog log;
  std::string told;
  for (int i = 1; i <= 5; ++i) told += log.Note("job", "gone after " + std::to_string(i) + " tries") ? 'x' : '.';
  EXPECT_EQ(told, "xx.x.");
}

TEST(FailureLogTest, TheFirstAnotherCauseAndEachDoublingAreTold) {
  FailureLog log;
  std::string told;
  for (int i = 1; i <= 20; ++i) told += log.Note("job", i < 11 ? "no model" : "no memory") ? 'x' : '.';
  //               1  2     4           8        11: another     16
  EXPECT_EQ(told, "xx.x...x..x....x....");
  EXPECT_EQ(log.failures(), 20u);
  EXPECT_TRUE(log.Note("job", "no model")) << "back to the first cause is a change too";

  EXPECT_TRUE(log.Note("another job", "no model"));
  EXPECT_EQ(log.failures(), 1u);
  log.Reset();
  EXPECT_EQ(log.failures(), 0u);
  EXPECT_TRUE(log.Note("another job", "no model"));
}

class JobBackoffTest : public ::testing::Test {
 protected:
  JobBackoff::Verdict Fail(double uniform, const std::string& job = "job") {
    return backoff_.Failed(job, "no model", now_, uniform);
  }

  JobBackoff backoff_;
  absl::Time now_ = absl::UnixEpoch();
};

TEST_F(JobBackoffTest, WaitsDoubleUpToFiveMinutes) {
  std::vector<int64_t> seconds;
  for (int i = 0; i < 8; ++i) seconds.push_back(absl::ToInt64Seconds(Fail(/*uniform=*/0).delay));
  EXPECT_EQ(seconds, (std::vector<int64_t>{5, 10, 20, 40, 80, 150, 150, 150}));
  for (int i = 0; i < 1000; ++i) EXPECT_LT(Fail(0.999).delay, absl::Minutes(5));
}

TEST_F(JobBackoffTest, AJobIsLeftAloneUntilItsWaitIsOver) {
  EXPECT_TRUE(backoff_.MayTry("job", now_));
  EXPECT_EQ(Fail(0.5).delay, absl::Seconds(7.5));
  EXPECT_FALSE(backoff_.MayTry("job", now_));
  EXPECT_TRUE(backoff_.MayTry("another job", now_)) << "which this actor may be fit for";
  now_ += absl::Seconds(7);
  EXPECT_FALSE(backoff_.MayTry("job", now_));
  now_ += absl::Seconds(0.5);
  EXPECT_TRUE(backoff_.MayTry("job", now_));
  EXPECT_EQ(Fail(0.5).delay, absl::Seconds(15));
}

TEST_F(JobBackoffTest, SuccessAndAnotherJobBeginAnew) {
  Fail(0);
  EXPECT_EQ(Fail(0).failures, 2u);
  backoff_.Succeeded();
  EXPECT_TRUE(backoff_.MayTry("job", now_));
  EXPECT_EQ(Fail(0).delay, absl::Seconds(5));
  Fail(0);
  const JobBackoff::Verdict other = Fail(0, "another job");
  EXPECT_TRUE(other.tell);
  EXPECT_EQ(other.failures, 1u);
  EXPECT_EQ(other.delay, absl::Seconds(5));
}

}  // namespace
}  // namespace sluice::actor
