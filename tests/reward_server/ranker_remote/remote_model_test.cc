#include "reward_server/ranker_remote/remote_model.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "common/rpc/server.h"
#include "common/sync/notification.h"
#include "common/sync/thread.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "reward_server/ranker/score_groups.h"
#include "reward_server/ranker_mapping/mapped_ranker.h"
#include "tests/testing/mapping_text.h"
#include "tests/testing/scripted_inference.h"

namespace sluice::reward {
namespace {

using ::inference::ModelInferRequest;
using ::inference::ModelInferResponse;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class RemoteModelTest : public ::testing::Test {
 protected:
  void SetUp() override { Start("127.0.0.1:0"); }
  void Start(const std::string& address) {
    server_ = RpcServer::Start(address, {&service_}).value();
    address_ = server_->address();
  }

  // `options`: further keys of open_inference.
  absl::Status Connect(const std::string& options = "", const std::string& text = kMappingText) {
    std::string changed = text;
    const std::string from = "'127.0.0.1:8001', model: ranker";
    changed.replace(changed.find(from), from.size(), "'" + address_ + "', model: ranker" + options);
    const auto mapping = ParseRankerMapping(changed, "m.yaml", "");
    EXPECT_TRUE(mapping.ok()) << mapping.status();
    QueryEncoder encoder = QueryEncoder::Create(*mapping, TinyDataset()).value();
    auto model = RemoteModel::Connect(encoder, {});
    if (!model.ok()) return model.status();
    ranker_ = std::make_unique<MappedRanker>(std::move(encoder), *std::move(model), MonotonicClock());
    service_.infer_calls = 0;
    return absl::OkStatus();
  }
  GroupResult Score() const {
    GroupToScore group;
    group.user = 0;
    group.history = {1};
    group.target = 3;
    group.candidates = {{0}, {1, 2}};
    return ScoreGroups(*ranker_, {&group})[0];
  }
  // Scores while honest answers are changed by `damage`; returns the error of the failed group.
  std::string Failed(std::function<void(ModelInferResponse*)> damage, GroupStatus status = GroupStatus::kFailed) {
    service_.infer = [damage](grpc::ServerContext*, const ModelInferRequest& request, ModelInferResponse* answer) {
      const grpc::Status honest = ScriptedInference::Honest(request, answer);
      damage(answer);
      return honest;
    };
    const GroupResult result = Score();
    EXPECT_EQ(result.status, status) << result.error;
    EXPECT_TRUE(result.heads.empty());
    return result.error;
  }

  ScriptedInference service_;
  std::unique_ptr<RpcServer> server_;
  std::string address_;
  std::unique_ptr<MappedRanker> ranker_;
};

TEST_F(RemoteModelTest, ScoresWithRawAndWithTypedContents) {
  for (const char* options : {"", ", contents: typed"}) {
    ASSERT_TRUE(Connect(options).ok());
    const GroupResult result = Score();
    ASSERT_EQ(result.status, GroupStatus::kOk) << result.error;
    EXPECT_THAT(result.heads[0].scores, ElementsAre(1, 21));
    EXPECT_EQ(result.heads[0].target, 31);
    EXPECT_EQ(service_.infer_calls, 1);
  }
}

TEST_F(RemoteModelTest, TheVersionThatAnsweredFirstIsPinned) {
  ASSERT_TRUE(Connect().ok());
  const std::string version = ranker_->version();
  std::string asked;
  service_.infer = [&](grpc::ServerContext*, const ModelInferRequest& request, ModelInferResponse* answer) {
    asked = request.model_version();
    return ScriptedInference::Honest(request, answer);
  };
  EXPECT_EQ(Score().status, GroupStatus::kOk);
  EXPECT_EQ(asked, "1");
  EXPECT_THAT(Failed([](auto* answer) { answer->set_model_version("2"); }),
              HasSubstr("the answer is of version '2' of model 'ranker', this server began with '1'"));
  // A server with several versions says none; the first answer does.
  service_.metadata = [](auto* answer) {
    answer->add_versions("2");
    return grpc::Status::OK;
  };
  service_.infer = [&](grpc::ServerContext*, const ModelInferRequest& request, ModelInferResponse* answer) {
    const grpc::Status status = ScriptedInference::Honest(request, answer);
    answer->set_model_version("2");
    return status;
  };
  ASSERT_TRUE(Connect().ok());
  EXPECT_EQ(Score().status, GroupStatus::kOk);
  EXPECT_NE(ranker_->version(), version);
}

TEST_F(RemoteModelTest, NoHostileAnswerBecomesANumber) {
  ASSERT_TRUE(Connect(", deadline_s: 20").ok());
  EXPECT_THAT(Failed([](auto* a) { a->set_model_name("other"); }), HasSubstr("the answer is of 'other'"));
  EXPECT_THAT(Failed([](auto* a) { a->set_id("not yours"); }), HasSubstr("the answer is to request 'not yours'"));
  EXPECT_THAT(Failed([](auto* a) { a->clear_outputs(), a->clear_raw_output_contents(); }),
              HasSubstr("answered without output 'score'"));
  EXPECT_THAT(Failed([](auto* a) { a->mutable_outputs(0)->set_name("scores"); }),
              HasSubstr("answered without output 'score'"));
  EXPECT_THAT(Failed([](auto* a) { a->mutable_outputs(0)->set_shape(0, 3); }), HasSubstr("has shape [3], want [4]"));
  EXPECT_THAT(Failed([](auto* a) { a->mutable_outputs(0)->add_shape(-1); }), HasSubstr("has shape [4, -1]"));
  EXPECT_THAT(Failed([](auto* a) { a->mutable_outputs(0)->set_datatype("FP64"); }), HasSubstr("has 16 bytes, want 32"));
  EXPECT_THAT(Failed([](auto* a) { a->mutable_outputs(0)->set_datatype("BYTES"); }), HasSubstr("of type BYTES"));
  EXPECT_THAT(Failed([](auto* a) { a->mutable_raw_output_contents(0)->pop_back(); }),
              HasSubstr("has 15 bytes, want 16"));
  EXPECT_THAT(Failed([](auto* a) { a->add_raw_output_contents("x"); }), HasSubstr("1 outputs with 2 raw contents"));
  EXPECT_THAT(Failed([](auto* a) { a->mutable_outputs(0)->mutable_contents()->add_fp32_contents(1); }),
              HasSubstr("has raw and typed contents"));
  const int before = service_.infer_calls;
  EXPECT_THAT(Failed([](auto* a) { a->add_raw_output_contents(std::string(17 << 20, 'x')); }),
              HasSubstr("larger than max"));
  EXPECT_EQ(service_.infer_calls, before + 1);  // no second try: it would be as large
  for (const float value : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    Failed([&](auto* a) { a->mutable_raw_output_contents(0)->replace(4, 4, reinterpret_cast<const char*>(&value), 4); },
           GroupStatus::kNotFinite);
  }
  service_.infer = [](grpc::ServerContext*, const ModelInferRequest& request, ModelInferResponse* answer) {
    return ScriptedInference::Honest(request, answer);
  };
  EXPECT_EQ(Score().status, GroupStatus::kOk);  // nothing of it stays
}

TEST_F(RemoteModelTest, ErrorsOfTheServerFailTheGroupWithItsWords) {
  ASSERT_TRUE(Connect().ok());
  for (const auto code : {grpc::StatusCode::INVALID_ARGUMENT, grpc::StatusCode::INTERNAL, grpc::StatusCode::UNKNOWN,
                          grpc::StatusCode::NOT_FOUND}) {
    service_.infer_calls = 0;
    service_.infer = [&](grpc::ServerContext*, const ModelInferRequest&, ModelInferResponse*) {
      return grpc::Status(code, "it burns " + std::string(4000, '!'));
    };
    const GroupResult result = Score();
    EXPECT_EQ(result.status, GroupStatus::kFailed);
    EXPECT_THAT(result.error, HasSubstr("it burns"));
    EXPECT_LT(result.error.size(), 1000u);
    EXPECT_EQ(service_.infer_calls, 1);
  }
}

TEST_F(RemoteModelTest, WhatHadNoRoomOrNoServerIsTriedAgain) {
  ASSERT_TRUE(Connect(", deadline_s: 30").ok());
  std::atomic<int> refusals{2};
  service_.infer = [&](grpc::ServerContext*, const ModelInferRequest& request, ModelInferResponse* answer) {
    if (refusals > 0) {
      return grpc::Status(--refusals == 0 ? grpc::StatusCode::UNAVAILABLE : grpc::StatusCode::RESOURCE_EXHAUSTED,
                          "later");
    }
    return ScriptedInference::Honest(request, answer);
  };
  const GroupResult result = Score();
  EXPECT_EQ(result.status, GroupStatus::kOk) << result.error;
  EXPECT_EQ(service_.infer_calls, 3);
}

TEST_F(RemoteModelTest, ASlowServerFailsTheGroupAtTheDeadline) {
  ASSERT_TRUE(Connect(", deadline_s: 0.2").ok());
  Notification released;
  service_.infer = [&](grpc::ServerContext*, const ModelInferRequest&, ModelInferResponse*) {
    released.Wait();
    return grpc::Status::OK;
  };
  const GroupResult result = Score();
  released.Notify();
  // A call may reach the server when nobody waits for it any more; it must not outlive what it waits for.
  server_->Shutdown(absl::ZeroDuration());
  EXPECT_EQ(result.status, GroupStatus::kFailed);
  EXPECT_THAT(result.error, HasSubstr("model 'ranker' at " + address_));
}

TEST_F(RemoteModelTest, AServerThatDiesInTheMiddleOfACallFailsItOrIsAskedAnew) {
  ASSERT_TRUE(Connect(", deadline_s: 30").ok());
  Notification arrived;
  service_.infer = [&](grpc::ServerContext* context, const ModelInferRequest&, ModelInferResponse*) {
    arrived.Notify();
    while (!context->IsCancelled()) {
    }
    return grpc::Status::CANCELLED;
  };
  GroupResult result;
  Thread caller = StartThread("caller", [&] { result = Score(); });
  arrived.Wait();
  server_->Shutdown(absl::ZeroDuration());
  service_.infer = [](grpc::ServerContext*, const ModelInferRequest& request, ModelInferResponse* answer) {
    return ScriptedInference::Honest(request, answer);
  };
  Start(address_);
  caller.Join();
  EXPECT_EQ(result.status, GroupStatus::kOk) << result.error;  // by the server that came after it
}

TEST_F(RemoteModelTest, NoMoreCallsThanTheMappingSaysRunAtATime) {
  ASSERT_TRUE(Connect(", calls: 2, deadline_s: 60").ok());
  std::atomic<int> running{0}, most{0};
  Notification two;
  service_.infer = [&](grpc::ServerContext*, const ModelInferRequest& request, ModelInferResponse* answer) {
    const int now = ++running;
    for (int seen = most; now > seen && !most.compare_exchange_weak(seen, now);) {
    }
    if (now == 2) two.Notify();
    two.Wait();  // the first one meets the second
    const grpc::Status status = ScriptedInference::Honest(request, answer);
    --running;
    return status;
  };
  std::vector<GroupResult> results(8);
  std::vector<Thread> callers;
  for (GroupResult& result : results) callers.push_back(StartThread("caller", [&] { result = Score(); }));
  callers.clear();
  for (const GroupResult& result : results) EXPECT_EQ(result.status, GroupStatus::kOk) << result.error;
  EXPECT_EQ(most, 2);
}

TEST_F(RemoteModelTest, AServerThatGetsReadyIsWaitedForAndOneThatDoesNotIsSaid) {
  std::atomic<int> asked{0};
  service_.model_ready = [&](const auto&, auto* answer) {
    answer->set_ready(++asked > 2);
    return grpc::Status::OK;
  };
  EXPECT_TRUE(Connect().ok());
  EXPECT_EQ(asked, 3);
  service_.server_ready = false;
  const absl::Status status = Connect(", start_s: 0");
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("the server at " + address_ + " is not ready"));
  server_->Shutdown(absl::ZeroDuration());
  const absl::Status gone = Connect(", start_s: 0");
  EXPECT_EQ(gone.code(), absl::StatusCode::kUnavailable) << gone;
}

TEST_F(RemoteModelTest, AnUnknownModelOrVersionIsSaidAtStart) {
  service_.model_ready = [](const auto& request, auto*) {
    return grpc::Status(grpc::StatusCode::NOT_FOUND, "there is no " + request.name());
  };
  const absl::Status status = Connect();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("there is no ranker"));
  service_.model_ready = [](const auto&, auto* answer) {
    answer->set_ready(true);
    return grpc::Status::OK;
  };
  EXPECT_THAT(std::string(Connect(", version: '7'").message()), HasSubstr("there is no '7', the server has 1"));
}

TEST_F(RemoteModelTest, AMappingThatDoesNotFitTheModelIsRefusedByItsKeys) {
  const absl::Status status = Connect("", MappingWith("{from: user}", "{from: user, type: INT32}"));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("inputs.user.type: the model wants INT64"));
  service_.metadata = [](auto* answer) {
    answer->set_name("other");
    return grpc::Status::OK;
  };
  EXPECT_EQ(Connect().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(RemoteModelTest, HostileMetadataIsBounded) {
  service_.metadata = [](auto* answer) {
    for (int i = 0; i < 2000; ++i) {
      auto* input = answer->add_inputs();
      input->set_name(std::string(1000, 'n'));
      for (int d = 0; d < 100; ++d) input->add_shape(-1);
    }
    return grpc::Status::OK;
  };
  const absl::Status status = Connect();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_LT(status.message().size(), 30000u);
}

TEST_F(RemoteModelTest, AnAddressThatIsNoneIsTheMappingsMistake) {
  address_ = "nowhere";
  EXPECT_EQ(Connect().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace sluice::reward
