#include "common/collective/collective.h"

#include <torch/torch.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/sync/memory_kv_store.h"
#include "common/sync/notification.h"
#include "common/sync/thread.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/fake_device/fake_device.h"

namespace sluice {
namespace {

// Longer than any test may take, so that a call that ends by it and not by the fault is seen as a hang.
constexpr absl::Duration kPatience = absl::Seconds(60);

// Ranks as threads of this process, meeting in one store.
void RunRanks(int world_size, const std::function<void(int rank)>& body) {
  std::vector<Thread> ranks;
  for (int rank = 0; rank < world_size; ++rank) ranks.push_back(StartThread("rank", [&body, rank] { body(rank); }));
}

std::unique_ptr<Collective> Join(const std::shared_ptr<KvStore>& store, int rank, int world_size, uint64_t epoch = 1,
                                 const std::string& name = "group") {
  GlooOptions options;
  options.timeout = kPatience;
  options.name = name;
  absl::StatusOr<std::unique_ptr<Collective>> group = MakeGlooCollective(store, rank, world_size, epoch, options);
  EXPECT_TRUE(group.ok()) << group.status();
  return group.ok() ? *std::move(group) : nullptr;
}

TEST(SingleCollectiveTest, LeavesTensorsAlone) {
  const std::unique_ptr<Collective> group = MakeSingleCollective();
  at::Tensor tensor = torch::arange(3);
  ASSERT_TRUE(group->AllReduceSum(tensor).ok());
  ASSERT_TRUE(group->Broadcast(tensor, 0).ok());
  EXPECT_TRUE(group->Barrier().ok());
  EXPECT_TRUE(tensor.equal(torch::arange(3)));
  EXPECT_EQ(group->world_size(), 1);
}

TEST(SingleCollectiveTest, AnAbortEndsItAndItsEpochIsTheCallers) {
  const std::unique_ptr<Collective> group = MakeSingleCollective(7);
  EXPECT_EQ(group->epoch(), 7u);
  group->Abort();
  group->Abort();
  at::Tensor tensor = torch::arange(3);
  EXPECT_EQ(group->AllReduceSum(tensor).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(group->Broadcast(tensor, 0).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(group->Barrier().code(), absl::StatusCode::kUnavailable);
}

class GlooCollectiveTest : public ::testing::TestWithParam<int> {};

// Gloo knows the host alone: one copy there and one back, a blocking one each.
TEST_P(GlooCollectiveTest, TensorsOfADeviceAreReducedThroughTheHost) {
  const int world_size = GetParam();
  auto store = std::make_shared<MemoryKvStore>();
  const FakeDeviceWaits waits;
  RunRanks(world_size, [&](int rank) {
    const auto group = Join(store, rank, world_size);
    ASSERT_NE(group, nullptr);
    at::Tensor tensor = (torch::arange(1000) + rank).to(at::kFloat).to(FakeDevice(), /*non_blocking=*/true);
    ASSERT_TRUE(group->AllReduceSum(tensor).ok());
    ASSERT_TRUE(group->Broadcast(tensor, 0).ok());
    const at::Tensor want = (torch::arange(1000) * world_size + world_size * (world_size - 1) / 2).to(at::kFloat);
    EXPECT_TRUE(tensor.to(at::kCPU).equal(want));
  });
  EXPECT_EQ(waits.count(), world_size * (2 + 2 + 1));
}

TEST_P(GlooCollectiveTest, AllReduceSumsOverRanksInEachDtype) {
  const int world_size = GetParam();
  auto store = std::make_shared<MemoryKvStore>();
  RunRanks(world_size, [&](int rank) {
    const auto group = Join(store, rank, world_size);
    ASSERT_NE(group, nullptr);
    EXPECT_EQ(group->rank(), rank);
    EXPECT_EQ(group->world_size(), world_size);
    for (const at::ScalarType dtype : {at::kFloat, at::kDouble, at::kLong}) {
      at::Tensor tensor = (torch::arange(1000) + rank).to(dtype);
      ASSERT_TRUE(group->AllReduceSum(tensor).ok());
      const int64_t ranks_sum = world_size * (world_size - 1) / 2;
      EXPECT_TRUE(tensor.equal((torch::arange(1000) * world_size + ranks_sum).to(dtype)));
    }
  });
}

TEST_P(GlooCollectiveTest, AllRanksGetTheSameBitsFromAnAllReduce) {
  const int world_size = GetParam();
  auto store = std::make_shared<MemoryKvStore>();
  std::vector<at::Tensor> results(world_size);
  RunRanks(world_size, [&](int rank) {
    const auto group = Join(store, rank, world_size);
    ASSERT_NE(group, nullptr);
    // Sums of sines round; a rank that added in another order would differ in the last bits.
    results[rank] = torch::sin(torch::arange(100000).to(at::kFloat) * (rank + 1));
    ASSERT_TRUE(group->AllReduceSum(results[rank]).ok());
  });
  for (int rank = 1; rank < world_size; ++rank) EXPECT_TRUE(results[rank].equal(results[0]));
}

TEST_P(GlooCollectiveTest, BroadcastCopiesTheRootsTensor) {
  const int world_size = GetParam();
  auto store = std::make_shared<MemoryKvStore>();
  RunRanks(world_size, [&](int rank) {
    const auto group = Join(store, rank, world_size);
    ASSERT_NE(group, nullptr);
    for (int root = 0; root < world_size; ++root) {
      at::Tensor tensor = torch::full({17}, 10.0 * rank + 3);
      ASSERT_TRUE(group->Broadcast(tensor, root).ok());
      EXPECT_TRUE(tensor.equal(torch::full({17}, 10.0 * root + 3)));
    }
    EXPECT_TRUE(group->Barrier().ok());
  });
}

INSTANTIATE_TEST_SUITE_P(WorldSizes, GlooCollectiveTest, ::testing::Values(1, 2, 3, 4));

TEST(GlooCollectiveTest, ABarrierHoldsUntilTheLastRankCame) {
  auto store = std::make_shared<MemoryKvStore>();
  std::atomic<int> arrived{0};
  RunRanks(3, [&](int rank) {
    const auto group = Join(store, rank, 3);
    ASSERT_NE(group, nullptr);
    for (int round = 1; round <= 20; ++round) {
      ++arrived;
      ASSERT_TRUE(group->Barrier().ok());
      EXPECT_GE(arrived.load(), 3 * round);
      ASSERT_TRUE(group->Barrier().ok());
    }
  });
}

TEST(GlooCollectiveTest, ARankThatLeavesMakesTheOthersFailWithUnavailable) {
  auto store = std::make_shared<MemoryKvStore>();
  RunRanks(3, [&](int rank) {
    auto group = Join(store, rank, 3);
    ASSERT_NE(group, nullptr);
    ASSERT_TRUE(group->Barrier().ok());
    if (rank == 1) return;  // its connections close with it
    at::Tensor tensor = torch::ones({1 << 20});
    absl::Status status = absl::OkStatus();
    for (int call = 0; call < 5 && status.ok(); ++call) status = group->AllReduceSum(tensor);
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    // And the group stays dead.
    EXPECT_EQ(group->Barrier().code(), absl::StatusCode::kUnavailable);
  });
}

TEST(GlooCollectiveTest, AbortFromAnotherThreadEndsTheCallInProgressHereAndAtThePeers) {
  auto store = std::make_shared<MemoryKvStore>();
  // Rank 2 never calls, so ranks 0 and 1 wait for it; only the abort of rank 0 can end that.
  Notification both_failed;
  std::atomic<int> failed{0};
  RunRanks(3, [&](int rank) {
    const auto group = Join(store, rank, 3);
    ASSERT_NE(group, nullptr);
    ASSERT_TRUE(group->Barrier().ok());
    if (rank == 2) {
      EXPECT_TRUE(both_failed.WaitFor(kPatience / 2)) << "the abort ended nothing";
      return;
    }
    Thread aborter;
    if (rank == 0) {
      aborter = StartThread("abort", [&group] {
        // Collides with the start of the call at will: before, during and after all must end it.
        for (int i = 0; i < 100; ++i) std::this_thread::yield();
        group->Abort();
        group->Abort();
      });
    }
    at::Tensor tensor = torch::ones({1 << 16});
    const absl::Status status = group->AllReduceSum(tensor);
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    if (++failed == 2) both_failed.Notify();
    aborter.Join();
  });
}

TEST(GlooCollectiveTest, ASilentPeerIsDeadlineExceeded) {
  auto store = std::make_shared<MemoryKvStore>();
  Notification other_done;
  RunRanks(2, [&](int rank) {
    GlooOptions options;
    options.timeout = absl::Milliseconds(300);
    const auto group = MakeGlooCollective(store, rank, 2, 1, options);
    ASSERT_TRUE(group.ok()) << group.status();
    if (rank == 1) {
      EXPECT_TRUE(other_done.WaitFor(kPatience));
      return;
    }
    const absl::Status status = (*group)->Barrier();
    EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
    other_done.Notify();
  });
}

TEST(GlooCollectiveTest, AGroupThatNobodyElseJoinsIsDeadlineExceeded) {
  GlooOptions options;
  options.timeout = absl::Milliseconds(200);
  const auto group = MakeGlooCollective(std::make_shared<MemoryKvStore>(), 0, 2, 9, options);
  EXPECT_EQ(group.status().code(), absl::StatusCode::kDeadlineExceeded) << group.status();
  EXPECT_THAT(std::string(group.status().message()), ::testing::HasSubstr("epoch 9"));
}

TEST(GlooCollectiveTest, EpochsOfOneStoreDoNotMeet) {
  auto store = std::make_shared<MemoryKvStore>();
  // The group of epoch 1 loses a rank; the survivors and a newcomer form epoch 2 over the same store.
  RunRanks(3, [&](int rank) {
    {
      const auto first = Join(store, rank, 3, 1);
      ASSERT_NE(first, nullptr);
      ASSERT_TRUE(first->Barrier().ok());
    }
    if (rank == 1) return;
    const auto second = Join(store, rank == 0 ? 0 : 1, 2, 2);
    ASSERT_NE(second, nullptr);
    EXPECT_EQ(second->epoch(), 2u);
    at::Tensor tensor = torch::ones({4});
    ASSERT_TRUE(second->AllReduceSum(tensor).ok());
    EXPECT_TRUE(tensor.equal(torch::full({4}, 2.0)));
  });
}

// The jobs of one epoch. Under one name the second group found the ports of the first, which were closed by then.
TEST(GlooCollectiveTest, GroupsOfOneEpochThatFollowOneAnotherDoNotMeet) {
  auto store = std::make_shared<MemoryKvStore>();
  RunRanks(2, [&](int rank) {
    for (const char* job : {"first", "second", "third"}) {
      const auto group = Join(store, rank, 2, 1, job);
      ASSERT_NE(group, nullptr);
      at::Tensor tensor = torch::ones({4});
      ASSERT_TRUE(group->AllReduceSum(tensor).ok());
      EXPECT_TRUE(tensor.equal(torch::full({4}, 2.0)));
    }
  });
}

TEST(GlooCollectiveTest, RefusesTensorsAndRanksThatItCannotHandle) {
  auto store = std::make_shared<MemoryKvStore>();
  EXPECT_EQ(MakeGlooCollective(store, 2, 2, 1, {}).status().code(), absl::StatusCode::kInvalidArgument);
  const auto group = Join(store, 0, 1);
  ASSERT_NE(group, nullptr);
  EXPECT_EQ(group->AllReduceSum(torch::ones({2}, at::kHalf)).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(group->AllReduceSum(torch::ones({4, 4}).t()).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(group->Broadcast(torch::ones({2}), 1).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace sluice
