#include "common/time/retry.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "common/status/exit_code.h"

namespace sluice {
namespace {

TEST(BackoffDelayTest, GrowsGeometricallyUpToTheMaximum) {
  RetryOptions options;
  options.initial_backoff = absl::Milliseconds(100);
  options.max_backoff = absl::Seconds(1);
  options.multiplier = 2;
  // uniform 0: half of 100, 200, 400, 800, then half of the maximum.
  EXPECT_EQ(BackoffDelay(options, 1, 0), absl::Milliseconds(50));
  EXPECT_EQ(BackoffDelay(options, 2, 0), absl::Milliseconds(100));
  EXPECT_EQ(BackoffDelay(options, 4, 0), absl::Milliseconds(400));
  EXPECT_EQ(BackoffDelay(options, 5, 0), absl::Milliseconds(500));
  EXPECT_EQ(BackoffDelay(options, 1'000'000, 0), absl::Milliseconds(500));
}

TEST(BackoffDelayTest, JitterSpreadsOverTheUpperHalf) {
  RetryOptions options;
  options.initial_backoff = absl::Seconds(1);
  EXPECT_EQ(BackoffDelay(options, 1, 0.5), absl::Milliseconds(750));
  EXPECT_LT(BackoffDelay(options, 1, 0.999), absl::Seconds(1));
}

class CallWithRetryTest : public testing::Test {
 protected:
  absl::Status Run(const std::function<absl::Status(absl::Duration)>& call) {
    return CallWithRetry(
        options_, [this] { return now_; },
        [this](absl::Duration delay) {
          now_ += delay;
          return !stop_;
        },
        &random_, call);
  }

  RetryOptions options_;
  absl::Time now_ = absl::UnixEpoch();
  bool stop_ = false;
  Random random_{1};
};

TEST_F(CallWithRetryTest, StopsAtTheFirstSuccess) {
  int calls = 0;
  EXPECT_TRUE(
      Run([&](absl::Duration) { return ++calls < 3 ? absl::UnavailableError("down") : absl::OkStatus(); }).ok());
  EXPECT_EQ(calls, 3);
}

TEST_F(CallWithRetryTest, DoesNotRepeatWhatCannotHelp) {
  int calls = 0;
  const absl::Status status = Run([&](absl::Duration) {
    ++calls;
    return absl::InvalidArgumentError("bad");
  });
  EXPECT_EQ(status, absl::InvalidArgumentError("bad"));
  EXPECT_EQ(calls, 1);
}

TEST(IsRetryableTest, AThrottledCallIsRepeatedAndAFullDiskIsNot) {
  EXPECT_TRUE(IsRetryable(absl::ResourceExhaustedError("slow down")));
  EXPECT_FALSE(IsRetryable(NoSpaceError("disk full")));
}

TEST_F(CallWithRetryTest, SpendsTheBudgetAndNoMore) {
  options_.total_timeout = absl::Seconds(10);
  std::vector<absl::Duration> timeouts;
  const absl::Status status = Run([&](absl::Duration timeout) {
    timeouts.push_back(timeout);
    now_ += std::min(timeout, absl::Seconds(3));
    return absl::DeadlineExceededError("slow");
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_GE(timeouts.size(), 3u);  // at 0, ~3.1 and ~6.2 s; a fourth only if the waits were short
  EXPECT_EQ(timeouts.front(), options_.attempt_timeout);
  EXPECT_LT(timeouts.back(), absl::Seconds(4));  // what is left of the 10 s
  EXPECT_LE(now_, absl::UnixEpoch() + absl::Seconds(10));
}

TEST_F(CallWithRetryTest, GivesUpWhenToldTo) {
  stop_ = true;
  EXPECT_EQ(Run([](absl::Duration) { return absl::UnavailableError("down"); }).code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace sluice
