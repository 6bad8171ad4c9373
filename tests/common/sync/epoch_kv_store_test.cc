#include "common/sync/epoch_kv_store.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/sync/thread.h"

namespace sluice {
namespace {

TEST(EpochKvStoreTest, KeysOfEpochsThatAreOverAreGoneAndTakenNoMore) {
  EpochKvStore store({});
  ASSERT_TRUE(store.Set("epoch/1/a", "x").ok());
  ASSERT_TRUE(store.Set("epoch/2/a", "y").ok());  // early
  store.ForgetBefore(2);
  EXPECT_EQ(store.size(), 1u);
  EXPECT_EQ(store.Get("epoch/2/a", absl::ZeroDuration()).value(), "y");
  EXPECT_EQ(store.Get("epoch/1/a", absl::ZeroDuration()).status().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(store.Set("epoch/1/b", "late").code(), absl::StatusCode::kAborted);
  EXPECT_EQ(store.Add("epoch/1/n", 1).status().code(), absl::StatusCode::kAborted);
  store.ForgetBefore(1);  // epochs only rise
  EXPECT_EQ(store.Set("epoch/1/b", "late").code(), absl::StatusCode::kAborted);
  EXPECT_EQ(store.Add("epoch/10/n", 3).value(), 3);
}

TEST(EpochKvStoreTest, OtherKeysAreRefused) {
  EpochKvStore store({});
  for (const char* key : {"", "epoch/", "epoch/1", "epoch/x/a", "epoch/-1/a", "epoch//a", "epoch/01/a", "epoch/+1/a",
                          "epoch/ 1/a", "job/1/a"}) {
    EXPECT_EQ(store.Set(key, "x").code(), absl::StatusCode::kInvalidArgument) << key;
    EXPECT_EQ(store.Get(key, absl::ZeroDuration()).status().code(), absl::StatusCode::kInvalidArgument) << key;
    EXPECT_EQ(store.Add(key, 1).status().code(), absl::StatusCode::kInvalidArgument) << key;
  }
  EXPECT_EQ(store.size(), 0u);
}

TEST(EpochKvStoreTest, TheBoundsAreOverAllEpochs) {
  EpochKvStore store({.max_keys = 2});
  ASSERT_TRUE(store.Set("epoch/1/a", "x").ok());
  ASSERT_TRUE(store.Set("epoch/1/b", "x").ok());
  EXPECT_EQ(store.Set("epoch/2/a", "x").code(), absl::StatusCode::kResourceExhausted);
  store.ForgetBefore(2);
  EXPECT_TRUE(store.Set("epoch/2/a", "x").ok());
}

TEST(EpochKvStoreTest, NothingIsLeftOfWhatWasWrittenWhileItsEpochEnded) {
  EpochKvStore store({});
  std::vector<Thread> writers;
  for (int w = 0; w < 4; ++w) {
    writers.push_back(StartThread("writer", [&store, w] {
      for (int i = 0; i < 200; ++i) {
        const absl::Status status = store.Set(absl::StrCat("epoch/", i % 20, "/", w), "x");
        EXPECT_TRUE(status.ok() || absl::IsAborted(status)) << status;
      }
    }));
  }
  for (uint64_t epoch = 0; epoch <= 20; ++epoch) store.ForgetBefore(epoch);
  for (Thread& writer : writers) writer.Join();
  EXPECT_EQ(store.size(), 0u);
}

TEST(EpochKvStoreTest, CloseWakesWhoWaits) {
  EpochKvStore store({});
  absl::Status got;
  Thread waiter = StartThread("waiter", [&] { got = store.Get("epoch/1/a", absl::Minutes(10)).status(); });
  store.Close();
  waiter.Join();
  EXPECT_EQ(got.code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace sluice
