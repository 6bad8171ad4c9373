#include "common/time/backoff.h"

#include <gtest/gtest.h>

namespace sluice {
namespace {

BackoffOptions TwentyToThousand() { return {.first = absl::Milliseconds(20), .max = absl::Seconds(1)}; }

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

}  // namespace
}  // namespace sluice
