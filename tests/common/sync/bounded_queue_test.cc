#include "common/sync/bounded_queue.h"

#include <atomic>
#include <memory>
#include <optional>
#include <vector>

#include "absl/time/time.h"
#include "common/sync/notification.h"
#include "common/sync/thread.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

TEST(BoundedQueueTest, HandsItemsOutInTheOrderTheyCame) {
  BoundedQueue<int> queue(3);
  for (const int i : {1, 2, 3}) EXPECT_TRUE(queue.TryPush(i));
  EXPECT_EQ(queue.Pop(), 1);
  EXPECT_EQ(queue.Pop(), 2);
  EXPECT_EQ(queue.Pop(), 3);
}

TEST(BoundedQueueTest, TryPushRefusesWhenFullAndTheQueueKeepsWhatItHad) {
  BoundedQueue<int> queue(2);
  EXPECT_TRUE(queue.TryPush(1));
  EXPECT_TRUE(queue.TryPush(2));
  EXPECT_FALSE(queue.TryPush(3));
  EXPECT_EQ(queue.size(), 2u);
  EXPECT_EQ(queue.Pop(), 1);
  EXPECT_TRUE(queue.TryPush(4));
  EXPECT_EQ(queue.Pop(), 2);
  EXPECT_EQ(queue.Pop(), 4);
}

TEST(BoundedQueueTest, ACloseLetsConsumersDrainAndProducersFail) {
  BoundedQueue<int> queue(4);
  EXPECT_TRUE(queue.Push(1));
  EXPECT_TRUE(queue.Push(2));
  queue.Close();
  EXPECT_FALSE(queue.Push(3));
  EXPECT_FALSE(queue.TryPush(3));
  EXPECT_EQ(queue.Pop(), 1);
  EXPECT_EQ(queue.Pop(), 2);
  EXPECT_EQ(queue.Pop(), std::nullopt);
  EXPECT_TRUE(queue.closed());
}

TEST(BoundedQueueTest, ACloseWakesAConsumerThatWaits) {
  BoundedQueue<int> queue(1);
  Notification done;
  const Thread consumer = StartThread("consumer", [&] {
    EXPECT_EQ(queue.Pop(), std::nullopt);
    done.Notify();
  });
  queue.Close();
  EXPECT_TRUE(done.WaitFor(absl::Seconds(30)));
}

TEST(BoundedQueueTest, ACloseWakesAProducerThatWaitsForRoom) {
  BoundedQueue<int> queue(1);
  ASSERT_TRUE(queue.Push(1));
  Notification done;
  const Thread producer = StartThread("producer", [&] {
    EXPECT_FALSE(queue.Push(2));
    done.Notify();
  });
  queue.Close();
  EXPECT_TRUE(done.WaitFor(absl::Seconds(30)));
  EXPECT_EQ(queue.Pop(), 1);
  EXPECT_EQ(queue.Pop(), std::nullopt);
}

TEST(BoundedQueueTest, PopForGivesUpOnAnEmptyQueueAndTakesWhatIsThere) {
  BoundedQueue<int> queue(1);
  EXPECT_EQ(queue.PopFor(absl::ZeroDuration()), std::nullopt);
  ASSERT_TRUE(queue.Push(7));
  EXPECT_EQ(queue.PopFor(absl::ZeroDuration()), 7);
}

TEST(BoundedQueueTest, CarriesValuesThatCanOnlyBeMoved) {
  BoundedQueue<std::unique_ptr<int>> queue(1);
  ASSERT_TRUE(queue.Push(std::make_unique<int>(5)));
  EXPECT_EQ(**queue.Pop(), 5);
}

// 4 producers of 500 numbers each, 3 consumers, room for 2: everything arrives exactly once and the bound holds.
TEST(BoundedQueueTest, UnderManyThreadsEveryItemArrivesOnceAndTheBoundHolds) {
  constexpr int kProducers = 4, kEach = 500, kConsumers = 3;
  BoundedQueue<int> queue(2);
  std::vector<std::atomic<int>> seen(kProducers * kEach);
  std::atomic<bool> over_bound{false};
  {
    std::vector<Thread> consumers;
    for (int c = 0; c < kConsumers; ++c) {
      consumers.push_back(StartThread("consumer", [&] {
        while (const std::optional<int> item = queue.Pop()) {
          if (queue.size() > queue.capacity()) over_bound = true;
          ++seen[*item];
        }
      }));
    }
    {
      std::vector<Thread> producers;
      for (int p = 0; p < kProducers; ++p) {
        producers.push_back(StartThread("producer", [&queue, p] {
          for (int i = 0; i < kEach; ++i) EXPECT_TRUE(queue.Push(p * kEach + i));
        }));
      }
    }  // producers joined
    queue.Close();
  }  // consumers joined
  EXPECT_FALSE(over_bound);
  for (size_t i = 0; i < seen.size(); ++i) ASSERT_EQ(seen[i], 1) << "item " << i;
}

}  // namespace
}  // namespace sluice
