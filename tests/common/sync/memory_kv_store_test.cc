#include "common/sync/memory_kv_store.h"

#include <gtest/gtest.h>

#include <vector>

#include "absl/strings/str_cat.h"
#include "common/sync/thread.h"

namespace sluice {
namespace {

TEST(MemoryKvStoreTest, AValueIsReadAsItWasSet) {
  MemoryKvStore store;
  ASSERT_TRUE(store.Set("epoch/1/a", std::string("x\0y", 3)).ok());
  EXPECT_EQ(store.Get("epoch/1/a", absl::ZeroDuration()).value(), std::string("x\0y", 3));
}

TEST(MemoryKvStoreTest, AMissingKeyIsADeadline) {
  MemoryKvStore store;
  EXPECT_EQ(store.Get("a", absl::Milliseconds(1)).status().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST(MemoryKvStoreTest, AWaiterGetsTheValueThatComes) {
  MemoryKvStore store;
  absl::StatusOr<std::string> got = absl::InternalError("not run");
  Thread waiter = StartThread("waiter", [&] { got = store.Get("a", absl::Seconds(30)); });
  ASSERT_TRUE(store.Set("a", "1").ok());
  waiter.Join();
  EXPECT_EQ(got.value(), "1");
}

TEST(MemoryKvStoreTest, CountersAddUpOverThreads) {
  MemoryKvStore store;
  std::vector<Thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.push_back(StartThread("adder", [&store] {
      for (int i = 0; i < 100; ++i) EXPECT_TRUE(store.Add("n", 2).ok());
    }));
  }
  threads.clear();
  EXPECT_EQ(store.Get("n", absl::ZeroDuration()).value(), "800");
}

TEST(MemoryKvStoreTest, ACounterIsACounter) {
  MemoryKvStore store;
  ASSERT_TRUE(store.Set("a", "text").ok());
  EXPECT_EQ(store.Add("a", 1).status().code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(store.Add("n", std::numeric_limits<int64_t>::max()).ok());
  EXPECT_EQ(store.Add("n", 1).status().code(), absl::StatusCode::kOutOfRange);
}

TEST(MemoryKvStoreTest, EverythingIsBounded) {
  MemoryKvStoreOptions options;
  options.max_keys = 2;
  options.max_bytes = 10;
  options.max_value_bytes = 6;
  MemoryKvStore store(options);
  EXPECT_EQ(store.Set("", "x").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(store.Set("a", "1234567").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(store.Set("a", "123456").ok());                                     // 7 bytes
  EXPECT_EQ(store.Set("b", "123").code(), absl::StatusCode::kResourceExhausted);  // would be 11
  EXPECT_TRUE(store.Set("b", "12").ok());                                         // 10
  EXPECT_TRUE(store.Set("a", "").ok());                                           // 4
  EXPECT_EQ(store.Set("c", "").code(), absl::StatusCode::kResourceExhausted);     // a third key
}

TEST(MemoryKvStoreTest, OldEpochsAreForgotten) {
  MemoryKvStore store;
  for (const char* key : {"epoch/1/a", "epoch/1/b", "epoch/10/a", "epoch/2/a"}) ASSERT_TRUE(store.Set(key, "x").ok());
  store.ForgetPrefix("epoch/1/");
  EXPECT_EQ(store.size(), 2u);
  EXPECT_TRUE(store.Get("epoch/10/a", absl::ZeroDuration()).ok());
}

TEST(MemoryKvStoreTest, ClosingWakesWaiters) {
  MemoryKvStore store;
  absl::StatusOr<std::string> got = absl::InternalError("not run");
  Thread waiter = StartThread("waiter", [&] { got = store.Get("a", absl::Seconds(60)); });
  store.Close();
  waiter.Join();
  EXPECT_EQ(got.status().code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace sluice
