// The weight group over Gloo, with members as threads, and over the fake NCCL.
#include "common/collective/weight_group.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/cuda.h>
#include <torch/types.h>

#include <atomic>
#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/collective/nccl_collective.h"
#include "common/sync/epoch_kv_store.h"
#include "common/sync/notification.h"
#include "common/sync/thread.h"
#include "tests/testing/fake_nccl/fake_nccl.h"
#include "tests/testing/placement.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

constexpr absl::Duration kGenerous = absl::Seconds(60);
constexpr uint64_t kFloats = 1001;  // the last piece is shorter
constexpr uint64_t kPiece = 256 * sizeof(float);

std::vector<float> Weights(float first) {
  std::vector<float> weights(kFloats);
  std::iota(weights.begin(), weights.end(), first);
  return weights;
}

absl::Span<char> Bytes(std::vector<float>& weights) {
  return {reinterpret_cast<char*>(weights.data()), weights.size() * sizeof(float)};
}

class WeightGroupTest : public ::testing::Test {
 protected:
  // Members as threads: rank 0 sends what begins with `first`. Statuses and what each holds, by rank.
  void Round(uint64_t epoch, int world_size, float first) {
    statuses_.assign(static_cast<size_t>(world_size), absl::OkStatus());
    held_.assign(static_cast<size_t>(world_size), std::vector<float>(kFloats, -1));
    held_[0] = Weights(first);
    while (groups_.size() < static_cast<size_t>(world_size)) {
      groups_.push_back(std::make_unique<WeightGroup>(form_, store_));
    }
    std::vector<Thread> threads;
    for (int rank = 0; rank < world_size; ++rank) {
      threads.push_back(StartThread("member", [this, epoch, world_size, rank] {
        const size_t r = static_cast<size_t>(rank);
        statuses_[r] = groups_[r]->Broadcast({epoch, rank, world_size}, Bytes(held_[r]), kPiece, timeout_);
      }));
    }
  }

  void ExpectAllHold(float first) {
    for (size_t rank = 0; rank < held_.size(); ++rank) {
      EXPECT_TRUE(statuses_[rank].ok()) << rank << ": " << statuses_[rank];
      EXPECT_EQ(held_[rank], Weights(first)) << rank;
    }
  }

  FormGroup Counting(FormGroup form) {
    return [this, form = std::move(form)](std::shared_ptr<KvStore> store, const GroupPlace& place,
                                          absl::Duration timeout) {
      ++formed_;
      return form(std::move(store), place, timeout);
    };
  }

  std::atomic<int> formed_ = 0;
  const std::shared_ptr<EpochKvStore> store_ = std::make_shared<EpochKvStore>(MemoryKvStoreOptions());
  FormGroup form_ = Counting(GlooGroups("127.0.0.1"));
  absl::Duration timeout_ = kGenerous;
  std::vector<std::unique_ptr<WeightGroup>> groups_;
  std::vector<absl::Status> statuses_;
  std::vector<std::vector<float>> held_;
};

TEST_F(WeightGroupTest, AllMembersHoldWhatTheFirstOneSentAndTheGroupIsUsedAgain) {
  Round(1, 3, 5);
  ExpectAllHold(5);
  Round(1, 3, 7);
  ExpectAllHold(7);
  EXPECT_EQ(formed_, 3);  // one a member
}

TEST_F(WeightGroupTest, AnotherEpochIsAnotherGroupOfOtherMembers) {
  Round(1, 2, 5);
  ExpectAllHold(5);
  store_->ForgetBefore(2);
  Round(2, 3, 6);
  ExpectAllHold(6);
  EXPECT_EQ(formed_, 5);
}

TEST_F(WeightGroupTest, AMemberThatIsGoneIsAnErrorForTheOthersAndTheNextEpochWorks) {
  Round(1, 3, 5);
  ExpectAllHold(5);
  groups_.pop_back();
  groups_.push_back(std::make_unique<WeightGroup>(form_, store_));
  statuses_.assign(3, absl::OkStatus());
  std::vector<Thread> threads;
  for (int rank = 0; rank < 2; ++rank) {
    threads.push_back(StartThread("member", [this, rank] {
      const size_t r = static_cast<size_t>(rank);
      statuses_[r] = groups_[r]->Broadcast({1, rank, 3}, Bytes(held_[r]), kPiece, timeout_);
    }));
  }
  for (Thread& thread : threads) thread.Join();
  EXPECT_FALSE(statuses_[0].ok() && statuses_[1].ok());
  Round(2, 3, 6);
  ExpectAllHold(6);
}

TEST_F(WeightGroupTest, AnAbortEndsAWaitForAMemberThatNeverCame) {
  groups_.push_back(std::make_unique<WeightGroup>(form_, store_));
  std::vector<float> weights = Weights(0);
  absl::Status status;
  Thread sender = StartThread("sender", [&] {
    status = groups_[0]->Broadcast({1, 0, 2}, Bytes(weights), kPiece, absl::Hours(1));
  });
  groups_[0]->Abort(1);
  sender.Join();
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
}

TEST_F(WeightGroupTest, AnAbortEndsABroadcastThatAMemberDoesNotTakePartIn) {
  Round(1, 2, 5);
  ExpectAllHold(5);
  std::vector<float> weights(kFloats);
  absl::Status status;
  Thread receiver = StartThread("receiver", [&] {
    status = groups_[1]->Broadcast({1, 1, 2}, Bytes(weights), kPiece, absl::Hours(1));
  });
  groups_[1]->Abort(1);
  receiver.Join();
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
}

TEST_F(WeightGroupTest, AbortsThatCollideWithABroadcastLeaveTheNextEpochUnharmed) {
  for (int rank = 0; rank < 3; ++rank) groups_.push_back(std::make_unique<WeightGroup>(form_, store_));
  for (uint64_t epoch = 1; epoch <= 40; epoch += 2) {
    Notification go;
    Thread breaker = StartThread("breaker", [&] {
      EXPECT_TRUE(go.WaitFor(kGenerous));
      // One is told first, then all are, as the rank does it.
      for (uint64_t i = 0; i < 3; ++i) groups_[(epoch / 2 + i) % 3]->Abort(epoch);
    });
    if (epoch % 4 == 1) Round(epoch, 3, 1);  // the abort comes to a group that is there, else while it forms
    timeout_ = absl::Seconds(2);             // what no abort ends
    go.Notify();
    Round(epoch, 3, 1);  // may end well or not
    breaker.Join();
    timeout_ = kGenerous;
    store_->ForgetBefore(epoch + 1);
    Round(epoch + 1, 3, 2);
    ExpectAllHold(2);
  }
}

TEST_F(WeightGroupTest, AnEpochThatWasGivenUpIsNotFormed) {
  WeightGroup group(form_, store_);
  group.Abort(4);
  std::vector<float> weights = Weights(0);
  const absl::Status status = group.Broadcast({4, 1, 2}, Bytes(weights), kPiece, kGenerous);
  EXPECT_EQ(status, absl::AbortedError("the weight group of epoch 4 was given up"));
  EXPECT_EQ(formed_, 0);
}

TEST_F(WeightGroupTest, PartsOfANumberAreRefused) {
  WeightGroup group(form_, store_);
  std::vector<float> weights = Weights(0);
  EXPECT_EQ(group.Broadcast({1, 0, 2}, Bytes(weights), 6, kGenerous).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(group.Broadcast({1, 0, 2}, Bytes(weights), 0, kGenerous).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(group.Broadcast({1, 0, 2}, Bytes(weights).first(7), 4, kGenerous).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(WeightGroupTest, AnAddressThatIsNotOfThisMachineIsAnError) {
  form_ = GlooGroups("203.0.113.7");
  WeightGroup group(form_, store_);
  std::vector<float> weights = Weights(0);
  const absl::Status status = group.Broadcast({1, 0, 2}, Bytes(weights), kPiece, absl::Seconds(5));
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr("203.0.113.7"));
}

// Over NCCL's rules, errors and hangs, by the fake.
class NcclWeightGroupTest : public WeightGroupTest {
 protected:
  NcclWeightGroupTest() {
    form_ = Counting([this](std::shared_ptr<KvStore> store, const GroupPlace& place,
                            absl::Duration timeout) -> absl::StatusOr<std::unique_ptr<Collective>> {
      NcclOptions options = {.name = "weights", .timeout = timeout, .close_timeout = absl::Seconds(1)};
      // Looks use up the time only where a test lets them: members are threads that wait for one another.
      options.now = [this] { return absl::UnixEpoch() + looks_.load() * absl::Milliseconds(100); };
      options.pause = [this] {
        if (clock_moves_) ++looks_;
        std::this_thread::yield();
      };
      return NcclCollective::Form(nccl_.api(), nccl_.NewStream(), *store, place.rank, place.world_size, place.epoch,
                                  std::move(options));
    });
  }
  void TearDown() override {
    groups_.clear();
    EXPECT_THAT(nccl_.breaches(), ::testing::IsEmpty());
    EXPECT_EQ(nccl_.live_communicators(), 0) << "a communicator was not freed";
  }

  FakeNccl nccl_{{.peers_notice = false}};
  std::atomic<int64_t> looks_ = 0;
  std::atomic<bool> clock_moves_ = false;
};

TEST_F(NcclWeightGroupTest, AllMembersHoldWhatTheFirstOneSent) {
  Round(1, 3, 5);
  ExpectAllHold(5);
  Round(1, 3, 6);
  ExpectAllHold(6);
  EXPECT_EQ(formed_, 3);
}

TEST_F(NcclWeightGroupTest, AnErrorOfOneMemberIsNoticedByTheDeadlineOfTheOthersAndTheNextEpochWorks) {
  Round(1, 3, 5);
  ExpectAllHold(5);
  nccl_.Inject(2, NcclCall::kBroadcast, {.result = NcclResult::kSystemError});
  clock_moves_ = true;
  Round(1, 3, 6);
  clock_moves_ = false;
  EXPECT_EQ(statuses_[2].code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(statuses_[0].ok() && statuses_[1].ok());
  Round(2, 3, 7);
  ExpectAllHold(7);
}

TEST_F(NcclWeightGroupTest, ABroadcastThatHangsEndsByItsDeadline) {
  Round(1, 2, 5);
  ExpectAllHold(5);
  nccl_.Inject(0, NcclCall::kBroadcast, {.result = NcclResult::kSuccess, .looks_in_progress = NcclFault::kForEver});
  clock_moves_ = true;
  Round(1, 2, 6);
  EXPECT_EQ(statuses_[0].code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(statuses_[1].code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(NcclWeightGroupTest, AnAbortEndsABroadcastThatHangs) {
  Round(1, 2, 5);
  ExpectAllHold(5);
  std::vector<float> weights(kFloats);
  absl::Status status;
  // Nobody sends: the clock stands, so only the abort can end it.
  Thread receiver = StartThread("receiver", [&] {
    status = groups_[1]->Broadcast({1, 1, 2}, Bytes(weights), kPiece, kGenerous);
  });
  groups_[1]->Abort(1);
  receiver.Join();
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
}

TEST_F(NcclWeightGroupTest, TwoMembersOnOneGpuAreAnErrorOfForming) {
  nccl_.Inject(1, NcclCall::kCommInitRankConfig, {.result = NcclResult::kInvalidUsage});
  clock_moves_ = true;
  Round(1, 2, 5);
  EXPECT_EQ(statuses_[1].code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(statuses_[0].code(), absl::StatusCode::kDeadlineExceeded);
}

// One GPU a member; members are threads of this process.
class NcclWeightsOnGpuTest : public WeightGroupTest, public ::testing::WithParamInterface<int> {};

TEST_P(NcclWeightsOnGpuTest, AllMembersHoldWhatTheFirstOneSentAndTheGroupIsUsedAgain) {
  if (!TestPlacement().device.is_cuda()) GTEST_SKIP() << "no GPU was named: ./sluice test --gpu -R collective does";
  const int members = GetParam();
  const int gpus = static_cast<int>(torch::cuda::device_count());
  if (gpus < members) GTEST_SKIP() << "want a GPU for each of " << members << " members, this machine has " << gpus;
  const NcclApi api = LoadNccl().value();
  form_ = Counting([api](std::shared_ptr<KvStore> store, const GroupPlace& place, absl::Duration timeout) {
    const at::Device device(at::kCUDA, static_cast<at::DeviceIndex>(place.rank));
    return NcclGroups(api, device)(std::move(store), place, timeout);
  });
  Round(1, members, 5);
  ExpectAllHold(5);
  Round(1, members, 6);
  ExpectAllHold(6);
  Round(2, members, 7);
  ExpectAllHold(7);
  EXPECT_EQ(formed_, 2 * members);
}

INSTANTIATE_TEST_SUITE_P(Members, NcclWeightsOnGpuTest, ::testing::Values(2, 3, 4));

TEST(OpenWeightBackendTest, SaysWhatCannotBeDoneHere) {
  EXPECT_EQ(OpenWeightBackend("grpc", at::kCPU, false, "127.0.0.1")->name, "");
  EXPECT_EQ(OpenWeightBackend("auto", at::kCPU, false, "127.0.0.1")->form, nullptr);
  EXPECT_EQ(OpenWeightBackend("gloo", at::kCPU, false, "127.0.0.1")->name, "gloo");
  const absl::Status nccl = OpenWeightBackend("nccl", at::kCPU, false, "127.0.0.1").status();
  EXPECT_EQ(nccl, absl::InvalidArgumentError("--weights nccl broadcasts between GPUs, and this process computes on "
                                             "cpu; add --device cuda:N, or use --weights gloo or grpc"));
  EXPECT_EQ(
      OpenWeightBackend("mpi", at::kCPU, false, "127.0.0.1").status(),
      absl::InvalidArgumentError("there is no way for weights called 'mpi'; want --weights grpc, gloo, nccl or auto"));
}

}  // namespace
}  // namespace sluice
