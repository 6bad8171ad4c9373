#include "actor/rollout/backoff.h"

#include <gtest/gtest.h>

#include "absl/status/status.h"
#include "actor/rollout/reward_client.h"

namespace sluice::actor {
namespace {

BackoffOptions TwentyToThousand() { return {absl::Milliseconds(20), absl::Seconds(1)}; }

TEST(BackoffTest, DelaysDoubleUpToTheMaximum) {
  EXPECT_EQ(RetryDelay(0, 0, TwentyToThousand()), absl::Milliseconds(10));
  EXPECT_EQ(RetryDelay(1, 0, TwentyToThousand()), absl::Milliseconds(20));
  EXPECT_EQ(RetryDelay(4, 0, TwentyToThousand()), absl::Milliseconds(160));
  EXPECT_EQ(RetryDelay(6, 0, TwentyToThousand()), absl::Milliseconds(500));
  EXPECT_EQ(RetryDelay(1000000, 0, TwentyToThousand()), absl::Milliseconds(500));
}

TEST(BackoffTest, JitterSpreadsOverTheUpperHalf) {
  EXPECT_EQ(RetryDelay(2, 0.5, TwentyToThousand()), absl::Milliseconds(60));
  EXPECT_GT(RetryDelay(2, 0.999, TwentyToThousand()), absl::Milliseconds(79));
  EXPECT_LT(RetryDelay(2, 0.999, TwentyToThousand()), absl::Milliseconds(80));
}

TEST(BackoffTest, AServersWishTravelsWithItsStatus) {
  const absl::Status status = WithRetryAfter(absl::ResourceExhaustedError("queue full"), absl::Milliseconds(40));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(RetryAfter(status), absl::Milliseconds(40));
  EXPECT_FALSE(RetryAfter(absl::UnavailableError("gone")).has_value());
}

}  // namespace
}  // namespace sluice::actor
