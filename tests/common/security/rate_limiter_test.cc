#include "common/security/rate_limiter.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace sluice {
namespace {

class RateLimiterTest : public testing::Test {
 protected:
  absl::Time now_ = absl::UnixEpoch();
  RateLimiter limiter_{{.per_second = 2, .burst = 3, .max_callers = 2}, [this] { return now_; }};
};

TEST_F(RateLimiterTest, ABurstThenASteadyRate) {
  for (int i = 0; i < 3; ++i) EXPECT_EQ(limiter_.Take("ada"), absl::ZeroDuration());
  EXPECT_EQ(limiter_.Take("ada"), absl::Milliseconds(500));
  now_ += absl::Milliseconds(250);  // half a permit
  EXPECT_EQ(limiter_.Take("ada"), absl::Milliseconds(250));
  now_ += absl::Milliseconds(250);
  EXPECT_EQ(limiter_.Take("ada"), absl::ZeroDuration());
  EXPECT_GT(limiter_.Take("ada"), absl::ZeroDuration());
}

TEST_F(RateLimiterTest, QuietCallersGetNoMoreThanTheBurst) {
  EXPECT_EQ(limiter_.Take("ada"), absl::ZeroDuration());
  now_ += absl::Hours(1);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(limiter_.Take("ada"), absl::ZeroDuration());
  EXPECT_GT(limiter_.Take("ada"), absl::ZeroDuration());
}

TEST_F(RateLimiterTest, CallersDoNotTakeFromOneAnother) {
  while (limiter_.Take("ada") == absl::ZeroDuration()) {
  }
  EXPECT_EQ(limiter_.Take("bob"), absl::ZeroDuration());
}

TEST_F(RateLimiterTest, WhoIsBusyIsRememberedWhenQuietOnesAreForgotten) {
  EXPECT_EQ(limiter_.Take("quiet"), absl::ZeroDuration());
  now_ += absl::Hours(1);
  while (limiter_.Take("ada") == absl::ZeroDuration()) {
  }
  EXPECT_EQ(limiter_.Take("new"), absl::ZeroDuration());  // a third caller: quiet goes
  EXPECT_GT(limiter_.Take("ada"), absl::ZeroDuration());
}

}  // namespace
}  // namespace sluice
