#include "actor/rpc/grpc_reward_client.h"

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>

#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "common/sync/notification.h"
#include "common/sync/thread.h"
#include "common/time/clock.h"

namespace sluice::actor {
namespace {

// Useful for: one scripted answer a call, with the request kept for inspection.
class FakeRewardService : public v1::RewardService::Service {
 public:
  grpc::Status Score(grpc::ServerContext* context, const v1::ScoreRequest* request,
                     v1::ScoreResponse* response) override {
    request_ = *request;
    return answer_(context, response);
  }

  std::function<grpc::Status(grpc::ServerContext*, v1::ScoreResponse*)> answer_;
  v1::ScoreRequest request_;
};

class GrpcRewardClientTest : public testing::Test {
 protected:
  void SetUp() override {
    auto server = RpcServer::Start("127.0.0.1:0", {&service_});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    client_ = std::make_unique<GrpcRewardClient>(MakeChannel(server_->address()), WallClock());
  }

  RewardRequest Request() const {
    RewardRequest request;
    request.job_id = "job-1";
    request.ranker = "blend";
    request.catalog_version = "c1";
    request.mean_of_items = true;
    request.groups = {GroupToScore{7, 2, 5, {1, 2}, 3, {{4}, {5, 6}}, {2, 1}}};
    return request;
  }
  static absl::Time Soon() { return WallClock()() + absl::Seconds(60); }

  FakeRewardService service_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<GrpcRewardClient> client_;
};

TEST_F(GrpcRewardClientTest, AsksForWholeGroupsAndPassesTheAnswerOn) {
  service_.answer_ = [](grpc::ServerContext*, v1::ScoreResponse* response) {
    response->set_ranker_version("r1");
    response->set_catalog_version("c1");
    v1::GroupScores* group = response->add_groups();
    group->set_ordinal(7);
    group->set_attempt(2);
    group->set_status(v1::GROUP_SCORE_STATUS_OK);
    v1::CandidateScores* head = group->add_heads();
    head->set_head("score");
    head->add_scores(0.5f);
    head->add_scores(-1.f);
    head->set_target(2.f);
    head->add_left_out(0.25f);
    head->add_left_out(0.75f);
    response->add_groups()->set_status(v1::GROUP_SCORE_STATUS_NOT_FINITE);
    response->add_groups()->set_status(static_cast<v1::GroupScoreStatus>(77));
    return grpc::Status::OK;
  };
  const auto response = client_->Score(Request(), Soon());
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->ranker_version, "r1");
  ASSERT_EQ(response->groups.size(), 3u);
  EXPECT_EQ(response->groups[0].status, GroupScoreStatus::kOk);
  EXPECT_EQ(response->groups[0].heads.at(0).scores, (std::vector<float>{0.5f, -1.f}));
  EXPECT_EQ(response->groups[0].heads[0].target, 2.f);
  EXPECT_EQ(response->groups[0].heads[0].left_out, (std::vector<float>{0.25f, 0.75f}));
  EXPECT_EQ(service_.request_.groups(0).leave_out_size(), 2);
  EXPECT_EQ(service_.request_.groups(0).leave_out(0), 2);
  EXPECT_EQ(response->groups[1].status, GroupScoreStatus::kNotFinite);
  EXPECT_EQ(response->groups[2].status, GroupScoreStatus::kFailed);  // of a later version

  EXPECT_EQ(service_.request_.ranker(), "blend");
  EXPECT_TRUE(service_.request_.mean_of_items());
  const v1::GroupToScore& asked = service_.request_.groups(0);
  EXPECT_EQ(asked.ordinal(), 7u);
  EXPECT_EQ(asked.user(), 5);
  EXPECT_EQ(asked.history_size(), 2);
  EXPECT_EQ(asked.target(), 3);
  EXPECT_EQ(asked.candidates(1).items_size(), 2);
}

TEST_F(GrpcRewardClientTest, ARefusalSaysWhenToComeBack) {
  service_.answer_ = [](grpc::ServerContext* context, v1::ScoreResponse*) {
    context->AddTrailingMetadata("retry_after_ms", "250");
    return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "queue full");
  };
  const absl::Status status = client_->Score(Request(), Soon()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(RetryAfter(status), absl::Milliseconds(250));
}

TEST_F(GrpcRewardClientTest, StatusesPassUnchanged) {
  service_.answer_ = [](grpc::ServerContext* context, v1::ScoreResponse*) {
    context->AddTrailingMetadata("retry_after_ms", "soon");
    return grpc::Status(grpc::StatusCode::FAILED_PRECONDITION, "another catalog");
  };
  const absl::Status status = client_->Score(Request(), Soon()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(status.message(), "another catalog");
  EXPECT_FALSE(RetryAfter(status).has_value());
}

TEST_F(GrpcRewardClientTest, ADeadlineThatHasPassedCostsNoCall) {
  EXPECT_EQ(client_->Score(Request(), WallClock()() - absl::Seconds(1)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
}

TEST_F(GrpcRewardClientTest, ACallInProgressAndLaterOnesCanBeCancelled) {
  Notification called, cancelled;
  service_.answer_ = [&](grpc::ServerContext*, v1::ScoreResponse*) {
    called.Notify();
    cancelled.Wait();
    return grpc::Status::OK;
  };
  Thread canceller = StartThread("cancel", [&] {
    called.Wait();
    client_->Cancel();
  });
  EXPECT_EQ(client_->Score(Request(), Soon()).status().code(), absl::StatusCode::kCancelled);
  cancelled.Notify();
  canceller.Join();
  EXPECT_EQ(client_->Score(Request(), Soon()).status().code(), absl::StatusCode::kCancelled);
  client_->Cancel();
  server_.reset();  // before the notifications that its handler knows
}

TEST_F(GrpcRewardClientTest, NobodyThereIsUnavailable) {
  server_.reset();
  EXPECT_EQ(client_->Score(Request(), Soon()).status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace sluice::actor
