#include "common/rpc/stream_sender.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "common/random/random.h"

namespace sluice {
namespace {

using testing::ElementsAre;

struct Text {
  std::string text;
  size_t ByteSizeLong() const { return text.size(); }
};

// Stands for the reactor: records what is written, and insists on gRPC's rules.
class StreamSenderTest : public testing::Test {
 protected:
  void Start(StreamSender<Text>::Limits limits) {
    sender_.emplace(
        limits,
        [this](const Text* message) {
          EXPECT_EQ(in_flight_, nullptr) << "a second write before OnWriteDone";
          EXPECT_FALSE(finished_.has_value()) << "a write after Finish";
          in_flight_ = message;
        },
        [this](const absl::Status& status) {
          EXPECT_EQ(in_flight_, nullptr) << "Finish with a write in flight";
          EXPECT_FALSE(finished_.has_value()) << "a second Finish";
          finished_ = status;
        });
  }

  void WriteDone(bool ok) {
    ASSERT_NE(in_flight_, nullptr);
    if (ok) written_.push_back(in_flight_->text);
    in_flight_ = nullptr;
    sender_->OnWriteDone(ok);
  }

  std::optional<StreamSender<Text>> sender_;
  const Text* in_flight_ = nullptr;
  std::vector<std::string> written_;
  std::optional<absl::Status> finished_;
};

TEST_F(StreamSenderTest, WritesOneAtATimeInOrder) {
  Start({});
  EXPECT_TRUE(sender_->Send({"a"}));
  EXPECT_TRUE(sender_->Send({"b"}));
  EXPECT_EQ(in_flight_->text, "a");
  WriteDone(true);
  WriteDone(true);
  EXPECT_THAT(written_, ElementsAre("a", "b"));
}

TEST_F(StreamSenderTest, CloseWritesWhatIsQueuedThenFinishesOnce) {
  Start({});
  sender_->Send({"a"});
  sender_->Send({"b"});
  sender_->Close(absl::UnavailableError("draining"));
  sender_->Close(absl::InternalError("too late to decide"));
  EXPECT_FALSE(sender_->Send({"c"}));
  EXPECT_FALSE(finished_.has_value());
  WriteDone(true);
  WriteDone(true);
  EXPECT_EQ(finished_, absl::UnavailableError("draining"));
}

TEST_F(StreamSenderTest, AbortDropsTheQueueButWaitsForTheWriteInFlight) {
  Start({});
  sender_->Send({"a"});
  sender_->Send({"b"});
  sender_->Abort(absl::AbortedError("new epoch"));
  EXPECT_FALSE(finished_.has_value());
  WriteDone(true);
  EXPECT_THAT(written_, ElementsAre("a"));
  EXPECT_EQ(finished_, absl::AbortedError("new epoch"));
}

TEST_F(StreamSenderTest, AFailedWriteEndsTheStream) {
  Start({});
  sender_->Send({"a"});
  sender_->Send({"b"});
  WriteDone(false);
  EXPECT_EQ(finished_->code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(sender_->Send({"c"}));
}

TEST_F(StreamSenderTest, AFullQueueRefuses) {
  Start({.messages = 2, .bytes = 100});
  EXPECT_TRUE(sender_->Send({"a"}));
  EXPECT_TRUE(sender_->Send({"b"}));
  EXPECT_FALSE(sender_->Send({"c"}));
  WriteDone(true);
  EXPECT_FALSE(sender_->Send({std::string(100, 'x')}));  // 1 + 100 > 100 bytes
  EXPECT_TRUE(sender_->Send({std::string(99, 'x')}));
}

TEST_F(StreamSenderTest, KeepsTheRulesUnderAnyOrderOfEvents) {
  for (uint64_t seed = 0; seed < 300; ++seed) {
    in_flight_ = nullptr;
    finished_.reset();
    Start({.messages = 4, .bytes = 1000});
    Random random(seed);
    for (int event = 0; event < 40; ++event) {
      switch (random.Below(8)) {
        case 0:
          if (random.Below(6) == 0) sender_->Close(absl::OkStatus());
          break;
        case 1:
          if (random.Below(6) == 0) sender_->Abort(absl::OkStatus());
          break;
        case 2:
        case 3:
        case 4:
          if (in_flight_ != nullptr) WriteDone(random.Below(20) != 0);
          break;
        default:
          sender_->Send({"m"});
      }
    }
    sender_->Close(absl::OkStatus());
    while (in_flight_ != nullptr) WriteDone(true);
    EXPECT_TRUE(finished_.has_value()) << "seed " << seed;
  }
}

}  // namespace
}  // namespace sluice
