// What NcclCollective makes of every answer that NCCL may give, and NCCL's rules for its callers, over a scripted fake
// and a clock that moves by a tenth of a second a look.
#include "common/collective/nccl_collective.h"

#include <torch/types.h>

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/sync/memory_kv_store.h"
#include "common/sync/thread.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/fake_device/fake_device.h"
#include "tests/testing/fake_nccl/fake_nccl.h"
#include "tests/testing/placement.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

constexpr int kForEver = NcclFault::kForEver;
constexpr absl::Duration kLook = absl::Milliseconds(100);

class NcclCollectiveTest : public ::testing::Test {
 protected:
  explicit NcclCollectiveTest(FakeNcclOptions options = {}) : nccl_(std::move(options)) {}

  void TearDown() override {
    EXPECT_THAT(nccl_.breaches(), ::testing::IsEmpty());
    EXPECT_EQ(nccl_.live_communicators(), 0) << "a communicator was not freed";
  }

  NcclOptions Options(const std::string& name = "group") {
    NcclOptions options;
    options.name = name;
    options.timeout = absl::Seconds(30);
    options.close_timeout = absl::Seconds(5);
    options.now = [this] { return absl::UnixEpoch() + Elapsed(); };
    // While ranks are threads that wait for one another, looks must not use up the time.
    options.pause = [this] {
      if (clock_moves_) {
        ++looks_;
      } else {
        std::this_thread::yield();
      }
    };
    return options;
  }

  absl::StatusOr<std::unique_ptr<NcclCollective>> Form(int rank = 0, int world_size = 1,
                                                       const std::string& name = "group") {
    std::unique_ptr<DeviceStream> stream = nccl_.NewStream();
    stream_ = stream.get();
    return NcclCollective::Form(nccl_.api(), std::move(stream), store_, rank, world_size, 1, Options(name));
  }

  // All ranks of a group, formed by threads.
  std::vector<std::unique_ptr<NcclCollective>> FormAll(int world_size, const std::string& name = "group") {
    std::vector<std::unique_ptr<NcclCollective>> groups(world_size);
    clock_moves_ = false;
    {
      std::vector<Thread> threads;
      for (int rank = 0; rank < world_size; ++rank) {
        threads.push_back(StartThread("rank", [&, rank] {
          auto group = NcclCollective::Form(nccl_.api(), nccl_.NewStream(), store_, rank, world_size, 1, Options(name));
          EXPECT_TRUE(group.ok()) << group.status();
          if (group.ok()) groups[rank] = *std::move(group);
        }));
      }
    }
    clock_moves_ = true;
    return groups;
  }

  absl::Duration Elapsed() const { return looks_.load() * kLook; }

  FakeNccl nccl_;
  MemoryKvStore store_;
  DeviceStream* stream_ = nullptr;  // of the last Form; lives as long as its group
  std::atomic<int64_t> looks_ = 0;
  std::atomic<bool> clock_moves_ = true;
};

void ExpectDead(NcclCollective& group) {
  EXPECT_EQ(group.Barrier().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(group.Broadcast(torch::ones({1}), 0).code(), absl::StatusCode::kUnavailable);
}

// Every error, at once and after a while, of every call.

struct ErrorCase {
  NcclResult result;
  absl::StatusCode code;
};
const ErrorCase kErrors[] = {
    {NcclResult::kUnhandledCudaError, absl::StatusCode::kUnavailable},
    {NcclResult::kSystemError, absl::StatusCode::kUnavailable},
    {NcclResult::kInternalError, absl::StatusCode::kInternal},
    {NcclResult::kInvalidArgument, absl::StatusCode::kInvalidArgument},
    {NcclResult::kInvalidUsage, absl::StatusCode::kInvalidArgument},
    {NcclResult::kRemoteError, absl::StatusCode::kUnavailable},
    {static_cast<NcclResult>(8), absl::StatusCode::kInternal},  // of a later NCCL
};

class NcclErrorTest : public NcclCollectiveTest,
                      public ::testing::WithParamInterface<std::tuple<ErrorCase, /*looks_in_progress=*/int>> {
 protected:
  ErrorCase error() const { return std::get<0>(GetParam()); }
  NcclFault Fault() const { return {error().result, std::get<1>(GetParam())}; }
  void ExpectError(const absl::Status& status) const {
    EXPECT_EQ(status.code(), error().code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("an error of the fake"));
    EXPECT_THAT(std::string(status.message()), HasSubstr("nothing happened"));
    EXPECT_THAT(std::string(status.message()), HasSubstr(std::to_string(static_cast<int>(error().result))));
  }
};

TEST_P(NcclErrorTest, OfInitializationIsOfForming) {
  nccl_.Inject(0, NcclCall::kCommInitRankConfig, Fault());
  const absl::Status status = Form().status();
  ExpectError(status);
  EXPECT_THAT(std::string(status.message()), HasSubstr("forming the NCCL group 'group' of epoch 1 as rank 0 of 1"));
}

TEST_P(NcclErrorTest, OfTheStateWhileForming) {
  nccl_.Inject(0, NcclCall::kCommGetAsyncError, Fault());
  ExpectError(Form().status());
}

TEST_P(NcclErrorTest, OfTheUniqueIdIsOfForming) {
  nccl_.Inject(0, NcclCall::kGetUniqueId, Fault());
  ExpectError(Form().status());
  EXPECT_EQ(nccl_.times(NcclCall::kCommInitRankConfig), 0);
}

TEST_P(NcclErrorTest, OfAnAllReduceEndsTheGroup) {
  auto group = Form();
  ASSERT_TRUE(group.ok()) << group.status();
  nccl_.Inject(0, NcclCall::kAllReduce, Fault());
  const absl::Status status = (*group)->AllReduceSum(torch::ones({4}));
  ExpectError(status);
  EXPECT_THAT(std::string(status.message()), HasSubstr("all-reduce of epoch 1, rank 0 of 1"));
  ExpectDead(**group);
  EXPECT_EQ(nccl_.times(NcclCall::kCommAbort), 1);
}

TEST_P(NcclErrorTest, OfABroadcastEndsTheGroup) {
  auto group = Form();
  ASSERT_TRUE(group.ok()) << group.status();
  nccl_.Inject(0, NcclCall::kBroadcast, Fault());
  ExpectError((*group)->Broadcast(torch::ones({4}), 0));
  ExpectDead(**group);
}

TEST_P(NcclErrorTest, OfTheStateWhileACallRunsEndsTheGroup) {
  auto group = Form();
  ASSERT_TRUE(group.ok()) << group.status();
  nccl_.Inject(0, NcclCall::kCommGetAsyncError, Fault());
  ExpectError((*group)->AllReduceSum(torch::ones({4})));
  ExpectDead(**group);
}

TEST_P(NcclErrorTest, OfTheEndTurnsItIntoAnAbort) {
  auto group = Form();
  ASSERT_TRUE(group.ok()) << group.status();
  nccl_.Inject(0, NcclCall::kCommFinalize, Fault());
  group->reset();
  EXPECT_EQ(nccl_.times(NcclCall::kCommAbort), 1);
  EXPECT_EQ(nccl_.times(NcclCall::kCommDestroy), 0);
}

TEST_P(NcclErrorTest, OfAnAbortOrOfFreeingChangesNothing) {
  auto aborted = Form(0, 1, "aborted");
  auto left = Form(0, 1, "left");
  ASSERT_TRUE(aborted.ok() && left.ok());
  nccl_.Inject(0, NcclCall::kCommAbort, {error().result});
  nccl_.Inject(0, NcclCall::kCommDestroy, {error().result});
  (*aborted)->Abort();
  (*aborted)->Abort();
  ExpectDead(**aborted);
  left->reset();
  EXPECT_EQ(nccl_.times(NcclCall::kCommAbort), 1);
  EXPECT_EQ(nccl_.times(NcclCall::kCommDestroy), 1);
}

INSTANTIATE_TEST_SUITE_P(All, NcclErrorTest, ::testing::Combine(::testing::ValuesIn(kErrors), ::testing::Values(0, 3)),
                         [](const auto& info) {
                           const NcclResult result = std::get<0>(info.param).result;
                           const int looks = std::get<1>(info.param);
                           return "Result" + std::to_string(static_cast<int>(result)) + "After" + std::to_string(looks);
                         });

// Calls that take their time, or never end.

TEST_F(NcclCollectiveTest, CallsInProgressAreWaitedFor) {
  nccl_.Inject(0, NcclCall::kCommInitRankConfig, {NcclResult::kSuccess, 20});
  auto group = Form();
  ASSERT_TRUE(group.ok()) << group.status();
  nccl_.Inject(0, NcclCall::kAllReduce, {NcclResult::kSuccess, 20});
  at::Tensor tensor = torch::full({4}, 3.0);
  // Before the twenty looks are over nothing is on the stream, which then looks done.
  ASSERT_TRUE((*group)->AllReduceSum(tensor).ok());
  EXPECT_TRUE(tensor.equal(torch::full({4}, 3.0)));
  nccl_.Inject(0, NcclCall::kBroadcast, {NcclResult::kSuccess, 20});
  ASSERT_TRUE((*group)->Broadcast(tensor, 0).ok());
  nccl_.Inject(0, NcclCall::kCommFinalize, {NcclResult::kSuccess, 20});
  group->reset();
  EXPECT_EQ(nccl_.times(NcclCall::kCommDestroy), 1);
  EXPECT_EQ(nccl_.times(NcclCall::kCommAbort), 0);
  EXPECT_EQ(Elapsed(), 4 * 20 * kLook);
}

TEST_F(NcclCollectiveTest, AnInitializationThatHangsEndsByTheDeadline) {
  nccl_.Inject(0, NcclCall::kCommInitRankConfig, {NcclResult::kSuccess, kForEver});
  EXPECT_EQ(Form().status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(Elapsed(), absl::Seconds(30));
}

TEST_F(NcclCollectiveTest, ACallThatHangsInNcclEndsByTheDeadline) {
  auto group = Form();
  ASSERT_TRUE(group.ok()) << group.status();
  nccl_.Inject(0, NcclCall::kAllReduce, {NcclResult::kSuccess, kForEver});
  const absl::Status status = (*group)->AllReduceSum(torch::ones({4}));
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
  EXPECT_EQ(Elapsed(), absl::Seconds(30));
  ExpectDead(**group);
}

TEST_F(NcclCollectiveTest, ACallThatHangsOnTheDeviceEndsByTheDeadline) {
  std::vector<std::unique_ptr<NcclCollective>> groups = FormAll(2);
  const absl::Status status = groups[0]->Barrier();  // rank 1 makes no call
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
  EXPECT_EQ(Elapsed(), absl::Seconds(30));
  ExpectDead(*groups[0]);
}

TEST_F(NcclCollectiveTest, AnEndThatHangsIsAnAbortSoonAfter) {
  auto group = Form();
  ASSERT_TRUE(group.ok()) << group.status();
  nccl_.Inject(0, NcclCall::kCommFinalize, {NcclResult::kSuccess, kForEver});
  group->reset();
  EXPECT_EQ(nccl_.times(NcclCall::kCommAbort), 1);
  EXPECT_EQ(nccl_.times(NcclCall::kCommDestroy), 0);
  EXPECT_EQ(Elapsed(), absl::Seconds(5));
}

TEST_F(NcclCollectiveTest, ADeviceThatFailsEndsTheGroup) {
  auto group = Form();
  ASSERT_TRUE(group.ok()) << group.status();
  nccl_.FailNextStreamUse("CUDA error: an illegal memory access\nException raised from somewhere");
  const absl::Status status = (*group)->Barrier();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()),
              ::testing::EndsWith("the device failed: CUDA error: an illegal memory access"));
  ExpectDead(**group);
}

TEST_F(NcclCollectiveTest, ADeviceThatFailsAtTheEndMakesItAnAbort) {
  auto group = Form();
  ASSERT_TRUE(group.ok()) << group.status();
  nccl_.FailNextStreamUse("CUDA error");
  group->reset();
  EXPECT_EQ(nccl_.times(NcclCall::kCommAbort), 1);
}

// Forming.

TEST_F(NcclCollectiveTest, EachGroupHasAnIdOfItsOwn) {
  auto first = Form(0, 1, "first");
  auto second = Form(0, 1, "second");
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(nccl_.times(NcclCall::kGetUniqueId), 2);
  EXPECT_NE(store_.Get("epoch/1/first/nccl/id", absl::ZeroDuration()).value(),
            store_.Get("epoch/1/second/nccl/id", absl::ZeroDuration()).value());
}

// An id that was used would wait for peers that are not there.
TEST_F(NcclCollectiveTest, AGroupIsNotFormedTwiceUnderOneName) {
  ASSERT_TRUE(Form().ok());
  EXPECT_EQ(Form().status().code(), absl::StatusCode::kInternal);
}

TEST_F(NcclCollectiveTest, ADamagedIdIsRefused) {
  ASSERT_TRUE(store_.Set("epoch/1/group/nccl/id", "short").ok());
  const absl::Status status = Form(1, 2).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), HasSubstr("want an id of 128 bytes, got 5"));
  EXPECT_EQ(nccl_.times(NcclCall::kCommInitRankConfig), 0);
}

TEST_F(NcclCollectiveTest, AnIdOfAnotherGroupEndsByTheDeadline) {
  NcclUniqueId other = {};
  ASSERT_EQ(nccl_.api().get_unique_id(&other), NcclResult::kSuccess);
  ASSERT_TRUE(store_.Set("epoch/1/group/nccl/id", std::string(other.internal, sizeof(other.internal))).ok());
  EXPECT_EQ(Form(1, 2).status().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(NcclCollectiveTest, AStoreThatIsGoneFailsTheForming) {
  store_.Close();
  EXPECT_EQ(Form(1, 2).status().code(), absl::StatusCode::kCancelled);
}

// Aborts.

TEST_F(NcclCollectiveTest, AnAbortWhileTheDeviceEndsIsNotTakenForSuccess) {
  auto group = Form();
  ASSERT_TRUE(group.ok()) << group.status();
  // The device stops because of the abort, so it is done, with anything in the tensor.
  nccl_.OnNextDone([&] { (*group)->Abort(); });
  EXPECT_EQ((*group)->AllReduceSum(torch::ones({4})).code(), absl::StatusCode::kUnavailable);
}

TEST_F(NcclCollectiveTest, GroupsOfOneProcessAreAbortedInOneCallOfNccl) {
  auto gradients = Form(0, 1, "gradients");
  auto weights = Form(0, 1, "weights");
  auto other = Form(0, 1, "other");
  ASSERT_TRUE(gradients.ok() && weights.ok() && other.ok());
  (*other)->Abort();
  EXPECT_EQ(nccl_.grouped_aborts(), 0);
  NcclCollective::AbortTogether({gradients->get(), weights->get(), other->get()});
  EXPECT_EQ(nccl_.grouped_aborts(), 2);
  EXPECT_EQ(nccl_.times(NcclCall::kCommAbort), 3);
  ExpectDead(**gradients);
  ExpectDead(**weights);
}

// NCCL allows one thread in a communicator, and none after an abort: the fake writes down every breach.
TEST_F(NcclCollectiveTest, AbortsThatCollideWithCallsKeepNcclsRules) {
  for (int round = 0; round < 50; ++round) {
    std::vector<std::unique_ptr<NcclCollective>> groups = FormAll(2, "round-" + std::to_string(round));
    clock_moves_ = false;
    std::vector<Thread> threads;
    for (int rank = 0; rank < 2; ++rank) {
      threads.push_back(StartThread("rank", [&, rank] {
        at::Tensor tensor = torch::ones({4});
        absl::Status status;
        while (status.ok()) status = groups[rank]->AllReduceSum(tensor);
        EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
      }));
    }
    for (int aborter = 0; aborter < 2; ++aborter) {
      threads.push_back(StartThread("abort", [&, round] {
        for (int i = 0; i < round; ++i) std::this_thread::yield();
        groups[0]->Abort();
      }));
    }
  }
}

class SlowDeviceTest : public NcclCollectiveTest {
 protected:
  SlowDeviceTest() : NcclCollectiveTest({.peers_notice = false, .looks_until_stopped = 7}) {}
};

// Until then the device may write to the tensor, which would be somebody else's.
TEST_F(SlowDeviceTest, AFailedCallReturnsWhenTheDeviceHasStopped) {
  std::vector<std::unique_ptr<NcclCollective>> groups = FormAll(2);
  const absl::Status status = groups[0]->Barrier();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
  EXPECT_EQ(Elapsed(), absl::Seconds(30) + 7 * kLook);
}

class StuckDeviceTest : public NcclCollectiveTest {
 protected:
  StuckDeviceTest() : NcclCollectiveTest({.peers_notice = false, .looks_until_stopped = 1 << 30}) {}
};

TEST_F(StuckDeviceTest, ADeviceThatNeverStopsIsLeftAloneInTheEnd) {
  std::vector<std::unique_ptr<NcclCollective>> groups = FormAll(2);
  EXPECT_EQ(groups[0]->Barrier().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(Elapsed(), absl::Seconds(30 + 5));
}

// Where tensors lie.

class NcclDeviceTest : public NcclCollectiveTest {
 protected:
  NcclDeviceTest() : NcclCollectiveTest({.memory = &FakeDeviceMemory}) {}
  void SetUp() override {
    if (TestPlacement().device.is_cuda()) GTEST_SKIP() << kNotBesideAGpu;
  }
};

TEST_F(NcclDeviceTest, TensorsOfTheDeviceNeverLeaveItAndThoseOfTheHostGoThereAndBack) {
  auto group = NcclCollective::Form(nccl_.api(), nccl_.NewStream(FakeDevice()), store_, 0, 1, 1, Options());
  ASSERT_TRUE(group.ok()) << group.status();
  at::Tensor there = torch::full({1000}, 2.0).to(FakeDevice(), /*non_blocking=*/true);
  at::Tensor here = torch::full({3}, 5, at::kLong);
  {
    const FakeDeviceWaits waits;
    ASSERT_TRUE((*group)->AllReduceSum(there).ok());
    ASSERT_TRUE((*group)->Broadcast(there, 0).ok());
    EXPECT_EQ(waits.count(), 0);
    ASSERT_TRUE((*group)->AllReduceSum(here).ok());
    EXPECT_EQ(waits.count(), 2);
  }
  EXPECT_TRUE(there.to(at::kCPU).equal(torch::full({1000}, 2.0)));
  EXPECT_TRUE(here.equal(torch::full({3}, 5, at::kLong)));
}

}  // namespace
}  // namespace sluice
