#include "common/sync/notification.h"

#include <atomic>
#include <vector>

#include "absl/time/time.h"
#include "common/sync/thread.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

TEST(NotificationTest, StartsUnsetAndAWaitWithoutTimeReturnsFalse) {
  const Notification notification;
  EXPECT_FALSE(notification.HasBeenNotified());
  EXPECT_FALSE(notification.WaitFor(absl::ZeroDuration()));
}

TEST(NotificationTest, StaysSetForThoseWhoComeLater) {
  Notification notification;
  notification.Notify();
  EXPECT_TRUE(notification.HasBeenNotified());
  EXPECT_TRUE(notification.WaitFor(absl::ZeroDuration()));
  notification.Wait();  // returns at once
}

TEST(NotificationTest, WakesEveryWaiter) {
  Notification notification;
  std::atomic<int> woken{0};
  {
    std::vector<Thread> waiters;
    for (int i = 0; i < 4; ++i) {
      waiters.push_back(StartThread("waiter", [&] {
        notification.Wait();
        ++woken;
      }));
    }
    notification.Notify();
  }
  EXPECT_EQ(woken, 4);
}

TEST(NotificationTest, WhatWasWrittenBeforeItIsVisibleAfterIt) {
  for (int round = 0; round < 200; ++round) {
    Notification notification;
    int value = 0;  // no lock of its own: the notification orders the accesses
    const Thread writer = StartThread("writer", [&] {
      value = round + 1;
      notification.Notify();
    });
    notification.Wait();
    ASSERT_EQ(value, round + 1);
  }
}

}  // namespace
}  // namespace sluice
