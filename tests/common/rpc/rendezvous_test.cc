#include "common/rpc/rendezvous.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "common/sync/epoch_kv_store.h"
#include "common/sync/thread.h"

namespace sluice {
namespace {

class RendezvousTest : public testing::Test {
 protected:
  void SetUp() override {
    auto server = RpcServer::Start("127.0.0.1:0", {&service_});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    client_ = std::make_unique<RendezvousClient>(MakeChannel(server_->address()));
  }

  EpochKvStore store_{{.max_keys = 3, .max_value_bytes = 8}};
  RendezvousService service_{&store_};
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<RendezvousClient> client_;
};

TEST_F(RendezvousTest, WhatOneSetsAnotherGets) {
  ASSERT_TRUE(client_->Set("epoch/1/a", std::string("x\0y", 3)).ok());
  RendezvousClient other(MakeChannel(server_->address()));
  EXPECT_EQ(other.Get("epoch/1/a", absl::ZeroDuration()).value(), std::string("x\0y", 3));
  EXPECT_EQ(client_->Add("epoch/1/n", 2).value(), 2);
  EXPECT_EQ(other.Add("epoch/1/n", 3).value(), 5);
  EXPECT_EQ(store_.Get("epoch/1/n", absl::ZeroDuration()).value(), "5");  // the server's own process sees the same
}

TEST_F(RendezvousTest, AGetWaitsLongerThanOneCallDoes) {
  // The client's clock stands, so that it asks again and again; the value comes before its second call.
  const absl::Time now = absl::UnixEpoch();
  int looks = 0;
  RendezvousClient client(MakeChannel(server_->address()), [&] {
    if (++looks == 4) {
      EXPECT_TRUE(store_.Set("epoch/1/a", "late").ok());
    }
    return now;
  });
  EXPECT_EQ(client.Get("epoch/1/a", absl::Milliseconds(5)).value(), "late");
}

TEST_F(RendezvousTest, AKeyThatNobodySetsIsADeadline) {
  EXPECT_EQ(client_->Get("epoch/1/a", absl::Milliseconds(1)).status().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(RendezvousTest, RefusalsOfTheStoreComeAsTheyAre) {
  store_.ForgetBefore(3);
  EXPECT_EQ(client_->Set("epoch/2/a", "x").code(), absl::StatusCode::kAborted);
  EXPECT_EQ(client_->Get("epoch/2/a", absl::Minutes(1)).status().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(client_->Set("job", "x").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(client_->Set("epoch/3/a", "123456789").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(client_->Set("epoch/3/" + std::string(600, 'k'), "x").code(), absl::StatusCode::kInvalidArgument);
  for (const char* key : {"epoch/3/a", "epoch/3/b", "epoch/3/c"}) ASSERT_TRUE(client_->Set(key, "x").ok());
  EXPECT_EQ(client_->Add("epoch/3/d", 1).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(client_->Add("epoch/3/a", 1).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(RendezvousTest, AServerThatGoesAwayIsUnavailableAndNotWaitedFor) {
  absl::Status status;
  Thread waiter = StartThread("waiter", [&] { status = client_->Get("epoch/1/a", absl::Hours(1)).status(); });
  server_->Shutdown(absl::ZeroDuration());
  waiter.Join();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace sluice
