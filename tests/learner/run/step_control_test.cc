#include "learner/run/step_control.h"

#include "gtest/gtest.h"

namespace sluice::learner {
namespace {

TEST(ScheduleProgressTest, AJobThatFitsItsLimitNeverMeetsTheClock) {
  for (const double pace : {0.0, 0.3, 0.9, 1.0}) {  // share of the limit that the whole job takes
    for (double work = 0; work <= 1; work += 1.0 / 64) EXPECT_EQ(ScheduleProgress(work, pace * work), work);
  }
  EXPECT_EQ(ScheduleProgress(0, 0.4), 0) << "a slow start is no reason either";
}

TEST(ScheduleProgressTest, AJobThatOutlastsItsLimitStillReachesTheEndAndNeverTurnsBack) {
  double last = 0;
  for (double time = 0; time <= 1; time += 1.0 / 64) {
    const double progress = ScheduleProgress(0.4 * time, time);  // 2.5 times too slow
    EXPECT_GE(progress, last);
    EXPECT_LE(progress - last, 2.0 / 64 + 1e-12) << "no jump where the limit takes over";
    last = progress;
  }
  EXPECT_EQ(last, 1);
}

TEST(ScheduleProgressTest, WithoutALimitWorkAloneCounts) {
  EXPECT_EQ(ScheduleProgress(0.75, 0), 0.75);
  EXPECT_EQ(ScheduleProgress(1, 0), 1);
}

}  // namespace
}  // namespace sluice::learner
