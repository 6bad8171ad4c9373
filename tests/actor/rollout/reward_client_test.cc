#include "actor/rollout/reward_client.h"

#include <gtest/gtest.h>

#include "absl/status/status.h"

namespace sluice::actor {
namespace {

TEST(RewardClientTest, AServersWishTravelsWithItsStatus) {
  const absl::Status status = WithRetryAfter(absl::ResourceExhaustedError("queue full"), absl::Milliseconds(40));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(RetryAfter(status), absl::Milliseconds(40));
  EXPECT_FALSE(RetryAfter(absl::UnavailableError("gone")).has_value());
}

}  // namespace
}  // namespace sluice::actor
