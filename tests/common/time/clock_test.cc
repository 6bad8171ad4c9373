#include "common/time/clock.h"

#include "absl/time/clock.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

TEST(ClockTest, MonotonicClockNeverRunsBackwards) {
  const NowFunction now = MonotonicClock();
  absl::Time last = now();
  for (int i = 0; i < 10000; ++i) {
    const absl::Time next = now();
    ASSERT_GE(next, last);
    last = next;
  }
}

TEST(ClockTest, TwoMonotonicClocksOfOneProcessAgree) {
  const NowFunction first = MonotonicClock();
  const NowFunction second = MonotonicClock();
  const absl::Time before = first();
  const absl::Time between = second();
  const absl::Time after = first();
  EXPECT_LE(before, between);
  EXPECT_LE(between, after);
}

TEST(ClockTest, WallClockIsTheTimeOfDay) {
  const absl::Time before = absl::Now();
  const absl::Time now = WallClock()();
  const absl::Time after = absl::Now();
  EXPECT_GE(now, before);
  EXPECT_LE(now, after);
}

}  // namespace
}  // namespace sluice
