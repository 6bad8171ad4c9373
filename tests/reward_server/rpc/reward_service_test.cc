#include "reward_server/rpc/reward_service.h"

#include <grpcpp/client_context.h>

#include <chrono>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "common/rpc/server.h"
#include "common/sync/notification.h"
#include "common/sync/thread.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/fake_ranker.h"

namespace sluice::reward {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class RewardServiceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto ranker = std::make_unique<FakeRanker>("fake");
    ranker_ = ranker.get();
    rankers_.Add(std::move(ranker));
    rankers_.Add(std::make_unique<FakeRanker>("other"));
    BatcherOptions options;
    options.max_delay = absl::Milliseconds(1);
    options.max_queued_groups = 3;
    batcher_ = std::make_unique<Batcher>(options, MonotonicClock(), &metrics_);
    service_ = std::make_unique<RewardServiceImpl>(&rankers_, "catalog-1", batcher_.get(), MonotonicClock(), &metrics_);
    server_ = RpcServer::Start("127.0.0.1:0", {service_.get()}).value();
    stub_ = v1::RewardService::NewStub(server_->InProcessChannel());
  }
  void TearDown() override {
    server_->Shutdown(absl::Seconds(10));
    batcher_->Close();
    worker_.Join();
  }
  void StartWorker() {
    worker_ = StartThread("batch", [this] { batcher_->Run(); });
  }

  static v1::ScoreRequest Request(int groups = 1) {
    v1::ScoreRequest request;
    request.set_job_id("job");
    request.set_ranker("fake");
    request.set_catalog_version("catalog-1");
    for (int g = 0; g < groups; ++g) {
      v1::GroupToScore* group = request.add_groups();
      group->set_ordinal(40 + static_cast<uint64_t>(g));
      group->set_attempt(3);
      group->set_user(-1);
      group->add_history(7);
      group->set_target(9);
      group->add_candidates()->add_items(1);
      v1::Candidate* two = group->add_candidates();
      two->add_items(2);
      two->add_items(3);
    }
    return request;
  }

  grpc::Status Score(const v1::ScoreRequest& request, v1::ScoreResponse* response,
                     absl::Duration timeout = absl::Seconds(30)) {
    context_ = std::make_unique<grpc::ClientContext>();
    context_->set_deadline(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(timeout));
    return stub_->Score(context_.get(), request, response);
  }

  Metrics metrics_;
  RankerSet rankers_;
  FakeRanker* ranker_ = nullptr;
  std::unique_ptr<Batcher> batcher_;
  std::unique_ptr<RewardServiceImpl> service_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<v1::RewardService::Stub> stub_;
  std::unique_ptr<grpc::ClientContext> context_;
  Thread worker_;
};

TEST_F(RewardServiceTest, ScoresComeBackInOrderWithVersionsEchoed) {
  StartWorker();
  v1::ScoreResponse response;
  const grpc::Status status = Score(Request(2), &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.ranker_version(), "fake-v1");
  EXPECT_EQ(response.catalog_version(), "catalog-1");
  ASSERT_EQ(response.groups_size(), 2);
  for (int g = 0; g < 2; ++g) {
    EXPECT_EQ(response.groups(g).ordinal(), 40u + static_cast<uint64_t>(g));
    EXPECT_EQ(response.groups(g).attempt(), 3u);
    EXPECT_EQ(response.groups(g).status(), v1::GROUP_SCORE_STATUS_OK);
    EXPECT_EQ(response.groups(g).heads(0).head(), "score");
    EXPECT_THAT(response.groups(g).heads(0).scores(), ElementsAre(17, 37));
    EXPECT_EQ(response.groups(g).heads(0).target(), 97);
  }
  EXPECT_THAT(metrics_.Text(), HasSubstr("sluice_reward_requests_total{code=\"OK\"} 1"));
}

TEST_F(RewardServiceTest, ItemsLeftOutOfTheHistoryAreScoredBesideTheGroup) {
  StartWorker();
  v1::ScoreRequest request = Request();
  request.mutable_groups(0)->add_history(4);
  request.mutable_groups(0)->add_leave_out(4);
  request.mutable_groups(0)->add_leave_out(7);
  v1::ScoreResponse response;
  ASSERT_TRUE(Score(request, &response).ok());
  EXPECT_THAT(response.groups(0).heads(0).left_out(), ElementsAre(47, 74));
  EXPECT_THAT(response.groups(0).heads(0).scores(), ElementsAre(14, 34));
  for (int i = 0; i < 257; ++i) request.mutable_groups(0)->add_leave_out(4);
  const grpc::Status status = Score(request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("want at most 256 items to leave out, got 259"));
}

TEST_F(RewardServiceTest, MeanOfItemsIsPassedOn) {
  StartWorker();
  v1::ScoreRequest request = Request();
  request.set_mean_of_items(true);
  v1::ScoreResponse response;
  ASSERT_TRUE(Score(request, &response).ok());
  EXPECT_THAT(response.groups(0).heads(0).scores(), ElementsAre(17, 32));
}

TEST_F(RewardServiceTest, AGroupThatCannotBeScoredCarriesItsReasonAndNoNumber) {
  StartWorker();
  v1::ScoreRequest request = Request(3);
  request.mutable_groups(0)->clear_history();
  request.mutable_groups(1)->set_target(1000);
  ranker_->set_hook([](auto, auto* answers) {
    answers->at(0).value()[0][0] = std::numeric_limits<float>::quiet_NaN();  // the one query that was asked
  });
  v1::ScoreResponse response;
  ASSERT_TRUE(Score(request, &response).ok());
  EXPECT_EQ(response.groups(0).status(), v1::GROUP_SCORE_STATUS_INVALID_INPUT);
  EXPECT_EQ(response.groups(1).status(), v1::GROUP_SCORE_STATUS_INVALID_INPUT);
  EXPECT_EQ(response.groups(2).status(), v1::GROUP_SCORE_STATUS_NOT_FINITE);
  for (const v1::GroupScores& group : response.groups()) {
    EXPECT_EQ(group.heads_size(), 0);
    EXPECT_FALSE(group.error().empty());
  }
}

TEST_F(RewardServiceTest, UnknownRankerAndOtherCatalogAreFailedPreconditions) {
  v1::ScoreResponse response;
  v1::ScoreRequest request = Request();
  request.set_ranker("blend");
  grpc::Status status = Score(request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(status.error_message(), HasSubstr("fake, other"));
  request = Request();
  request.set_catalog_version("catalog-2");
  status = Score(request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(status.error_message(), HasSubstr("catalog-2"));
}

TEST_F(RewardServiceTest, EmptyAndOversizedRequestsAreInvalid) {
  v1::ScoreResponse response;
  EXPECT_EQ(Score(Request(0), &response).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Score(Request(4), &response).error_code(), grpc::StatusCode::INVALID_ARGUMENT);  // the queue holds 3
  v1::ScoreRequest request = Request();
  for (int i = 0; i < 8200; ++i) request.mutable_groups(0)->add_candidates()->add_items(1);
  const grpc::Status status = Score(request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("ordinal 40"));
}

TEST_F(RewardServiceTest, FullQueueAnswersWithTheTimeToWait) {
  // No worker: what is submitted stays queued.
  v1::ScoreRequest request = Request(2);
  v1::ScoreResponse first, second;
  grpc::ClientContext queued;
  queued.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  Notification ended;
  stub_->async()->Score(&queued, &request, &first, [&](const grpc::Status&) { ended.Notify(); });
  while (batcher_->queued_groups() < 2) std::this_thread::yield();
  const grpc::Status status = Score(request, &second);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  const auto& trailers = context_->GetServerTrailingMetadata();
  const auto found = trailers.find(kRetryAfterTrailer);
  ASSERT_NE(found, trailers.end());
  EXPECT_GE(std::stoi(std::string(found->second.data(), found->second.size())), 1);
  StartWorker();
  ended.Wait();
}

TEST_F(RewardServiceTest, ACancelledCallIsAnsweredToNobodyAndHarmsNoOther) {
  v1::ScoreRequest request = Request();
  v1::ScoreResponse response;
  grpc::ClientContext cancelled;
  cancelled.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  Notification ended;
  grpc::Status status;
  stub_->async()->Score(&cancelled, &request, &response, [&](const grpc::Status& result) {
    status = result;
    ended.Notify();
  });
  while (batcher_->queued_groups() < 1) std::this_thread::yield();
  cancelled.TryCancel();
  ended.Wait();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::CANCELLED);
  StartWorker();  // its task finishes a call that has ended
  v1::ScoreResponse other;
  ASSERT_TRUE(Score(Request(), &other).ok());
  EXPECT_EQ(batcher_->queued_groups(), 0);
}

TEST_F(RewardServiceTest, ExpiredCallEndsWithoutAWorker) {
  v1::ScoreResponse response;
  EXPECT_EQ(Score(Request(), &response, absl::Milliseconds(50)).error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  StartWorker();  // and the server survives answering it late
  ASSERT_TRUE(Score(Request(), &response).ok());
}

TEST_F(RewardServiceTest, StoppedBatcherIsUnavailable) {
  batcher_->Close();
  v1::ScoreResponse response;
  EXPECT_EQ(Score(Request(), &response).error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(RewardServiceTest, DescribeNamesRankersHeadsAndCatalog) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  v1::DescribeRankersResponse response;
  ASSERT_TRUE(stub_->Describe(&context, {}, &response).ok());
  EXPECT_EQ(response.catalog_version(), "catalog-1");
  ASSERT_EQ(response.rankers_size(), 2);
  EXPECT_EQ(response.rankers(0).name(), "fake");
  EXPECT_EQ(response.rankers(0).version(), "fake-v1");
  EXPECT_THAT(response.rankers(0).heads(), ElementsAre("score", "second"));
}

}  // namespace
}  // namespace sluice::reward
