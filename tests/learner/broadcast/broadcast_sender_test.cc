#include "learner/broadcast/broadcast_sender.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/sync/notification.h"
#include "common/sync/thread.h"
#include "learner/publish/policy_store.h"

namespace sluice::learner {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr absl::Duration kGenerous = absl::Seconds(60);

// Useful for: a group whose other members are a script.
class ScriptedCollective : public Collective {
 public:
  struct Script {
    absl::Status answer;
    bool hangs = false;  // until it is aborted
    std::vector<float> sent;
    Notification entered;
    Notification aborted;
  };

  ScriptedCollective(Script* script, const GroupPlace& place) : script_(script), place_(place) {}
  int rank() const override { return place_.rank; }
  int world_size() const override { return place_.world_size; }
  uint64_t epoch() const override { return place_.epoch; }
  absl::Status AllReduceSum(at::Tensor) override { return absl::UnimplementedError("weights are not reduced"); }
  absl::Status Barrier() override { return absl::UnimplementedError("nobody waits for actors"); }
  absl::Status Broadcast(at::Tensor tensor, int root) override {
    EXPECT_EQ(root, 0);
    script_->entered.Notify();
    if (script_->hangs) {
      EXPECT_TRUE(script_->aborted.WaitFor(kGenerous));
      return absl::UnavailableError("the group was aborted");
    }
    const float* const values = tensor.data_ptr<float>();
    script_->sent.insert(script_->sent.end(), values, values + tensor.numel());
    return script_->answer;
  }
  void Abort() override { script_->aborted.Notify(); }

 private:
  Script* const script_;
  const GroupPlace place_;
};

class BroadcastSenderTest : public testing::Test {
 protected:
  BroadcastSenderTest() {
    for (const uint64_t version : {1, 2, 3}) {
      policies_.Put("job", MakeSnapshot(version, std::vector<float>{1, 2, static_cast<float>(version)}));
    }
    BroadcastSender::Options options;
    options.form = [this](std::shared_ptr<KvStore>, const GroupPlace& place,
                          absl::Duration timeout) -> absl::StatusOr<std::unique_ptr<Collective>> {
      EXPECT_EQ(timeout, absl::Seconds(20));
      ++formed_;
      return std::make_unique<ScriptedCollective>(&script_, place);
    };
    options.store = store_;
    options.find = [this](const std::string& job_id, uint64_t version) { return policies_.Find(job_id, version); };
    options.done = [this](uint64_t epoch, uint64_t version, bool ok) {
      MutexLock lock(&mutex_);
      told_.push_back(absl::StrCat(version, " in ", epoch, ok ? " ok" : " failed"));
    };
    options.now = [] { return absl::UnixEpoch(); };
    sender_ = std::make_unique<BroadcastSender>(std::move(options));
  }

  void Send(uint64_t version, uint64_t epoch) {
    sender_->Send({"job", version, {epoch, 0, 3}, 2 * sizeof(float), absl::Seconds(20)});
  }
  std::vector<std::string> Told() {
    MutexLock lock(&mutex_);
    return std::exchange(told_, {});
  }

  ScriptedCollective::Script script_;
  int formed_ = 0;
  PolicyStore policies_;
  const std::shared_ptr<EpochKvStore> store_ = std::make_shared<EpochKvStore>(MemoryKvStoreOptions());
  Mutex mutex_;
  std::vector<std::string> told_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<BroadcastSender> sender_;
};

TEST_F(BroadcastSenderTest, SendsAVersionInPiecesAndTellsHowItWent) {
  Send(2, 1);
  EXPECT_THAT(Told(), IsEmpty());
  EXPECT_TRUE(sender_->RunOnce());
  EXPECT_THAT(script_.sent, ElementsAre(1, 2, 2));
  EXPECT_THAT(Told(), ElementsAre("2 in 1 ok"));
  Send(3, 1);
  sender_->RunOnce();
  EXPECT_THAT(Told(), ElementsAre("3 in 1 ok"));
  EXPECT_EQ(formed_, 1);  // the group of the same epoch
}

TEST_F(BroadcastSenderTest, OnlyTheNewestOrderWaits) {
  Send(2, 1);
  Send(3, 2);
  EXPECT_THAT(Told(), ElementsAre("2 in 1 failed"));
  sender_->RunOnce();
  EXPECT_THAT(Told(), ElementsAre("3 in 2 ok"));
}

TEST_F(BroadcastSenderTest, AnErrorIsToldAndTheNextEpochIsAnotherGroup) {
  script_.answer = absl::UnavailableError("a peer is gone");
  Send(2, 1);
  sender_->RunOnce();
  EXPECT_THAT(Told(), ElementsAre("2 in 1 failed"));
  script_.answer = absl::OkStatus();
  Send(3, 2);
  sender_->RunOnce();
  EXPECT_THAT(Told(), ElementsAre("3 in 2 ok"));
  EXPECT_EQ(formed_, 2);
}

TEST_F(BroadcastSenderTest, AVersionThatIsNoLongerKeptIsAFailure) {
  Send(1, 1);
  sender_->RunOnce();
  EXPECT_THAT(Told(), ElementsAre("1 in 1 failed"));
  EXPECT_EQ(formed_, 0);
}

TEST_F(BroadcastSenderTest, AnAbortEndsABroadcastThatHangs) {
  script_.hangs = true;
  Send(2, 1);
  sender_->Start();
  ASSERT_TRUE(script_.entered.WaitFor(kGenerous));
  sender_->Abort(1);
  sender_->Stop();
  EXPECT_THAT(Told(), ElementsAre("2 in 1 failed"));
}

TEST_F(BroadcastSenderTest, WhatComesWhileABroadcastHangsFailsAtOnce) {
  script_.hangs = true;
  Send(2, 1);
  sender_->Start();
  ASSERT_TRUE(script_.entered.WaitFor(kGenerous));
  Send(3, 2);
  EXPECT_THAT(Told(), ElementsAre("3 in 2 failed"));
  sender_->Stop();
  EXPECT_THAT(Told(), ElementsAre("2 in 1 failed"));
}

TEST_F(BroadcastSenderTest, StopEndsABroadcastThatHangs) {
  script_.hangs = true;
  Send(2, 1);
  sender_->Start();
  ASSERT_TRUE(script_.entered.WaitFor(kGenerous));
  sender_->Stop();
  Send(3, 2);  // nobody is there any more
  EXPECT_FALSE(sender_->RunOnce());
  EXPECT_THAT(Told(), ElementsAre("2 in 1 failed"));
}

TEST_F(BroadcastSenderTest, KeysOfEarlierGroupsAreForgotten) {
  ASSERT_TRUE(store_->Set("epoch/1/weights/a", "x").ok());
  Send(2, 2);
  EXPECT_EQ(store_->size(), 0u);
  EXPECT_EQ(store_->Set("epoch/1/weights/a", "late").code(), absl::StatusCode::kAborted);
}

}  // namespace
}  // namespace sluice::learner
