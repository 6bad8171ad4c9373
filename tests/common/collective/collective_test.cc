// What every backend promises, as one suite: a group of one, Gloo, NCCL over a fake, and, where SLUICE_TEST_PLACEMENT
// names a GPU (`./sluice test --gpu -R collective`), NCCL itself with as many ranks as there are GPUs.
#include "common/collective/collective.h"

#include <torch/cuda.h>
#include <torch/types.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/collective/device_stream.h"
#include "common/collective/nccl_api.h"
#include "common/collective/nccl_collective.h"
#include "common/sync/memory_kv_store.h"
#include "common/sync/notification.h"
#include "common/sync/thread.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/fake_device/fake_device.h"
#include "tests/testing/fake_nccl/fake_nccl.h"
#include "tests/testing/placement.h"

namespace sluice {
namespace {

// Longer than any test may take, so that a call that ends by it and not by the fault is seen as a hang.
constexpr absl::Duration kPatience = absl::Seconds(60);

// Ranks as threads of this process, meeting in one store.
void RunRanks(int world_size, const std::function<void(int rank)>& body) {
  std::vector<Thread> ranks;
  for (int rank = 0; rank < world_size; ++rank) ranks.push_back(StartThread("rank", [&body, rank] { body(rank); }));
}

enum class Backend { kSingle, kGloo, kNcclOverFake, kNccl };

struct Case {
  Backend backend;
  int world_size;
};

std::string CaseName(const ::testing::TestParamInfo<Case>& info) {
  static const char* const kNames[] = {"Single", "Gloo", "NcclOverFake", "Nccl"};
  return kNames[static_cast<int>(info.param.backend)] + std::to_string(info.param.world_size);
}

class CollectiveTest : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (backend() != Backend::kNccl) return;
    if (!TestPlacement().device.is_cuda()) GTEST_SKIP() << "no GPU was named: ./sluice test --gpu -R collective does";
    const int gpus = static_cast<int>(torch::cuda::device_count());
    if (gpus < world_size()) {
      GTEST_SKIP() << "want a GPU for each of " << world_size() << " ranks, this machine has " << gpus;
    }
    absl::StatusOr<NcclApi> api = LoadNccl();
    ASSERT_TRUE(api.ok()) << api.status();
    nccl_ = *std::move(api);
  }

  void TearDown() override {
    EXPECT_THAT(fake_.breaches(), ::testing::IsEmpty());
    EXPECT_EQ(fake_.live_communicators(), 0);
  }

  Backend backend() const { return GetParam().backend; }
  int world_size() const { return GetParam().world_size; }
  at::Device DeviceOf(int rank) const {
    return backend() == Backend::kNccl ? at::Device(at::kCUDA, static_cast<at::DeviceIndex>(rank)) : at::kCPU;
  }
  // Whether a peer that is gone is told from one that is silent.
  bool NoticesTheDead() const { return backend() != Backend::kNccl; }

  struct JoinOptions {
    uint64_t epoch = 1;
    std::string name = "group";
    absl::Duration timeout = kPatience;
  };
  absl::StatusOr<std::unique_ptr<Collective>> TryJoin(int rank, int world_size, const JoinOptions& options) {
    if (backend() == Backend::kSingle) return MakeSingleCollective();
    if (backend() == Backend::kGloo) {
      return MakeGlooCollective(store_, rank, world_size, options.epoch,
                                {.name = options.name, .timeout = options.timeout});
    }
    const bool fake = backend() == Backend::kNcclOverFake;
    absl::StatusOr<std::unique_ptr<DeviceStream>> stream = fake ? fake_.NewStream() : MakeTorchStream(DeviceOf(rank));
    if (!stream.ok()) return stream.status();
    return NcclCollective::Form(fake ? fake_.api() : nccl_, *std::move(stream), *store_, rank, world_size,
                                options.epoch, {.name = options.name, .timeout = options.timeout});
  }
  std::unique_ptr<Collective> Join(int rank) { return Join(rank, world_size(), {}); }
  std::unique_ptr<Collective> Join(int rank, int world_size, const JoinOptions& options) {
    absl::StatusOr<std::unique_ptr<Collective>> group = TryJoin(rank, world_size, options);
    EXPECT_TRUE(group.ok()) << group.status();
    return group.ok() ? *std::move(group) : nullptr;
  }

  const std::shared_ptr<MemoryKvStore> store_ = std::make_shared<MemoryKvStore>();
  FakeNccl fake_;
  NcclApi nccl_;
};

TEST_P(CollectiveTest, AllReduceSumsOverRanksInEachDtype) {
  RunRanks(world_size(), [&](int rank) {
    const auto group = Join(rank);
    ASSERT_NE(group, nullptr);
    EXPECT_EQ(group->rank(), rank);
    EXPECT_EQ(group->world_size(), world_size());
    for (const at::ScalarType dtype : {at::kFloat, at::kDouble, at::kLong}) {
      at::Tensor tensor = (torch::arange(1000) + rank).to(dtype).to(DeviceOf(rank));
      ASSERT_TRUE(group->AllReduceSum(tensor).ok());
      const int64_t ranks_sum = world_size() * (world_size() - 1) / 2;
      EXPECT_TRUE(tensor.cpu().equal((torch::arange(1000) * world_size() + ranks_sum).to(dtype)));
    }
  });
}

TEST_P(CollectiveTest, TensorsOfTheHostAreReducedOnAnyDevice) {
  RunRanks(world_size(), [&](int rank) {
    const auto group = Join(rank);
    ASSERT_NE(group, nullptr);
    at::Tensor votes = torch::full({3}, rank, at::kLong);
    ASSERT_TRUE(group->AllReduceSum(votes).ok());
    EXPECT_TRUE(votes.equal(torch::full({3}, world_size() * (world_size() - 1) / 2, at::kLong)));
  });
}

TEST_P(CollectiveTest, ATensorWithoutElementsIsACallLikeAnother) {
  RunRanks(world_size(), [&](int rank) {
    const auto group = Join(rank);
    ASSERT_NE(group, nullptr);
    EXPECT_TRUE(group->AllReduceSum(torch::zeros({0}, DeviceOf(rank))).ok());
    EXPECT_TRUE(group->Broadcast(torch::zeros({0}, DeviceOf(rank)), world_size() - 1).ok());
    EXPECT_TRUE(group->Barrier().ok());
  });
}

TEST_P(CollectiveTest, AllRanksGetTheSameBitsFromAnAllReduce) {
  std::vector<at::Tensor> results(world_size());
  RunRanks(world_size(), [&](int rank) {
    const auto group = Join(rank);
    ASSERT_NE(group, nullptr);
    // Sums of sines round; a rank that added in another order would differ in the last bits.
    results[rank] = torch::sin(torch::arange(100000).to(at::kFloat) * (rank + 1)).to(DeviceOf(rank));
    ASSERT_TRUE(group->AllReduceSum(results[rank]).ok());
  });
  for (int rank = 1; rank < world_size(); ++rank) EXPECT_TRUE(results[rank].cpu().equal(results[0].cpu()));
}

TEST_P(CollectiveTest, BroadcastCopiesTheRootsTensor) {
  RunRanks(world_size(), [&](int rank) {
    const auto group = Join(rank);
    ASSERT_NE(group, nullptr);
    for (const at::ScalarType dtype : {at::kFloat, at::kDouble, at::kLong}) {
      for (int root = 0; root < world_size(); ++root) {
        at::Tensor tensor = torch::full({17}, 10 * rank + 3, dtype).to(DeviceOf(rank));
        ASSERT_TRUE(group->Broadcast(tensor, root).ok());
        EXPECT_TRUE(tensor.cpu().equal(torch::full({17}, 10 * root + 3, dtype)));
      }
    }
  });
}

TEST_P(CollectiveTest, ABarrierHoldsUntilTheLastRankCame) {
  std::atomic<int> arrived{0};
  RunRanks(world_size(), [&](int rank) {
    const auto group = Join(rank);
    ASSERT_NE(group, nullptr);
    for (int round = 1; round <= 20; ++round) {
      ++arrived;
      ASSERT_TRUE(group->Barrier().ok());
      EXPECT_GE(arrived.load(), world_size() * round);
      ASSERT_TRUE(group->Barrier().ok());
    }
  });
}

INSTANTIATE_TEST_SUITE_P(All, CollectiveTest,
                         ::testing::Values(Case{Backend::kSingle, 1}, Case{Backend::kGloo, 1}, Case{Backend::kGloo, 2},
                                           Case{Backend::kGloo, 3}, Case{Backend::kGloo, 4},
                                           Case{Backend::kNcclOverFake, 1}, Case{Backend::kNcclOverFake, 2},
                                           Case{Backend::kNcclOverFake, 3}, Case{Backend::kNcclOverFake, 4},
                                           Case{Backend::kNccl, 1}, Case{Backend::kNccl, 2}, Case{Backend::kNccl, 4}),
                         CaseName);

// What a group of one has none of: peers, errors, epochs.
class GroupTest : public CollectiveTest {};

TEST_P(GroupTest, RefusesTensorsAndRanksThatItCannotHandle) {
  EXPECT_EQ(TryJoin(2, 2, {}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(TryJoin(-1, 2, {}).status().code(), absl::StatusCode::kInvalidArgument);
  const auto group = Join(0, 1, {});
  ASSERT_NE(group, nullptr);
  EXPECT_EQ(group->AllReduceSum(torch::ones({2}, at::kHalf)).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(group->AllReduceSum(torch::ones({4, 4}).t()).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(group->Broadcast(torch::ones({2}, at::kHalf), 0).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(group->Broadcast(torch::ones({2}), 1).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(group->Broadcast(torch::ones({2}), -1).code(), absl::StatusCode::kInvalidArgument);
  // A refusal is the caller's matter: the group lives.
  EXPECT_TRUE(group->Barrier().ok());
}

TEST_P(GroupTest, AnAbortedGroupFailsEveryCall) {
  const auto group = Join(0, 1, {});
  ASSERT_NE(group, nullptr);
  group->Abort();
  group->Abort();
  EXPECT_EQ(group->Barrier().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(group->AllReduceSum(torch::ones({2})).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(group->Broadcast(torch::ones({2}), 0).code(), absl::StatusCode::kUnavailable);
}

TEST_P(GroupTest, ARankThatLeavesMakesTheOthersFail) {
  const absl::Duration timeout = NoticesTheDead() ? kPatience : absl::Seconds(3);
  RunRanks(world_size(), [&](int rank) {
    auto group = Join(rank, world_size(), {.timeout = timeout});
    ASSERT_NE(group, nullptr);
    ASSERT_TRUE(group->Barrier().ok());
    if (rank == 1) return;  // its connections close with it
    at::Tensor tensor = torch::ones({1 << 20});
    absl::Status status = absl::OkStatus();
    for (int call = 0; call < 5 && status.ok(); ++call) status = group->AllReduceSum(tensor);
    EXPECT_TRUE(absl::IsUnavailable(status) || (!NoticesTheDead() && absl::IsDeadlineExceeded(status))) << status;
    // And the group stays dead.
    EXPECT_EQ(group->Barrier().code(), absl::StatusCode::kUnavailable);
  });
}

TEST_P(GroupTest, AbortFromAnotherThreadEndsTheCallInProgressHereAndAtThePeers) {
  // The last rank never calls, so the others wait for it; only the abort of rank 0 can end that, or each rank's own.
  const int silent = world_size() - 1;
  Notification all_failed;
  std::atomic<int> failed{0};
  RunRanks(world_size(), [&](int rank) {
    const auto group = Join(rank);
    ASSERT_NE(group, nullptr);
    ASSERT_TRUE(group->Barrier().ok());
    if (rank == silent) {
      EXPECT_TRUE(all_failed.WaitFor(kPatience / 2)) << "the abort ended nothing";
      return;
    }
    Thread aborter;
    if (rank == 0 || !NoticesTheDead()) {
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
    if (++failed == silent) all_failed.Notify();
    aborter.Join();
  });
}

TEST_P(GroupTest, ASilentPeerIsDeadlineExceeded) {
  Notification other_done;
  RunRanks(world_size(), [&](int rank) {
    const auto group = Join(rank, world_size(), {.timeout = absl::Seconds(rank == 0 ? 2 : 60)});
    ASSERT_NE(group, nullptr);
    if (rank != 0) {
      EXPECT_TRUE(other_done.WaitFor(kPatience));
      return;
    }
    const absl::Status status = group->Barrier();
    EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
    other_done.Notify();
  });
}

TEST_P(GroupTest, AGroupThatNobodyElseJoinsIsDeadlineExceeded) {
  const auto group = TryJoin(0, world_size(), {.epoch = 9, .timeout = absl::Milliseconds(200)});
  EXPECT_EQ(group.status().code(), absl::StatusCode::kDeadlineExceeded) << group.status();
  EXPECT_THAT(std::string(group.status().message()), ::testing::HasSubstr("epoch 9"));
}

TEST_P(GroupTest, EpochsOfOneStoreDoNotMeet) {
  // The group of epoch 1 loses a rank; the survivors form epoch 2 over the same store.
  const int survivors = world_size() - 1;
  RunRanks(world_size(), [&](int rank) {
    {
      const auto first = Join(rank);
      ASSERT_NE(first, nullptr);
      ASSERT_TRUE(first->Barrier().ok());
    }
    if (rank == survivors) return;
    const auto second = Join(rank, survivors, {.epoch = 2});
    ASSERT_NE(second, nullptr);
    EXPECT_EQ(second->epoch(), 2u);
    at::Tensor tensor = torch::ones({4});
    ASSERT_TRUE(second->AllReduceSum(tensor).ok());
    EXPECT_TRUE(tensor.equal(torch::full({4}, static_cast<float>(survivors))));
  });
}

// The jobs of one epoch. Under one name the second group found the ports of the first, which were closed by then.
TEST_P(GroupTest, GroupsOfOneEpochThatFollowOneAnotherDoNotMeet) {
  RunRanks(world_size(), [&](int rank) {
    for (const char* job : {"first", "second", "third"}) {
      const auto group = Join(rank, world_size(), {.name = job});
      ASSERT_NE(group, nullptr);
      at::Tensor tensor = torch::ones({4});
      ASSERT_TRUE(group->AllReduceSum(tensor).ok());
      EXPECT_TRUE(tensor.equal(torch::full({4}, static_cast<float>(world_size()))));
    }
  });
}

TEST_P(GroupTest, TwoGroupsBesideOneAnotherFailApart) {
  RunRanks(world_size(), [&](int rank) {
    const auto gradients = Join(rank, world_size(), {.name = "gradients"});
    const auto weights = Join(rank, world_size(), {.name = "weights"});
    ASSERT_NE(gradients, nullptr);
    ASSERT_NE(weights, nullptr);
    at::Tensor tensor = torch::full({4}, static_cast<float>(rank));
    ASSERT_TRUE(weights->Broadcast(tensor, 1).ok());
    weights->Abort();
    EXPECT_EQ(weights->Barrier().code(), absl::StatusCode::kUnavailable);
    ASSERT_TRUE(gradients->AllReduceSum(tensor).ok());
    EXPECT_TRUE(tensor.equal(torch::full({4}, static_cast<float>(world_size()))));
  });
}

INSTANTIATE_TEST_SUITE_P(All, GroupTest,
                         ::testing::Values(Case{Backend::kGloo, 2}, Case{Backend::kGloo, 3},
                                           Case{Backend::kNcclOverFake, 2}, Case{Backend::kNcclOverFake, 3},
                                           Case{Backend::kNccl, 2}, Case{Backend::kNccl, 4}),
                         CaseName);

// Gloo knows the host alone: one copy there and one back, a blocking one each.
TEST(GlooCollectiveTest, TensorsOfADeviceAreReducedThroughTheHost) {
  if (TestPlacement().device.is_cuda()) GTEST_SKIP() << kNotBesideAGpu;
  constexpr int kWorld = 3;
  auto store = std::make_shared<MemoryKvStore>();
  const FakeDeviceWaits waits;
  RunRanks(kWorld, [&](int rank) {
    const auto group = MakeGlooCollective(store, rank, kWorld, 1, {.timeout = kPatience});
    ASSERT_TRUE(group.ok()) << group.status();
    at::Tensor tensor = (torch::arange(1000) + rank).to(at::kFloat).to(FakeDevice(), /*non_blocking=*/true);
    ASSERT_TRUE((*group)->AllReduceSum(tensor).ok());
    ASSERT_TRUE((*group)->Broadcast(tensor, 0).ok());
    const at::Tensor want = (torch::arange(1000) * kWorld + kWorld * (kWorld - 1) / 2).to(at::kFloat);
    EXPECT_TRUE(tensor.to(at::kCPU).equal(want));
  });
  EXPECT_EQ(waits.count(), kWorld * (2 + 2 + 1));
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

}  // namespace
}  // namespace sluice
