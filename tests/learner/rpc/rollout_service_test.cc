#include "learner/rpc/rollout_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "common/rpc/status.h"

namespace sluice::learner {
namespace {

using testing::HasSubstr;

constexpr absl::Duration kGenerous = absl::Seconds(60);

// One stream, driven by hand.
class FakeActor {
 public:
  explicit FakeActor(const std::string& address) : stub_(v1::RolloutService::NewStub(MakeChannel(address))) {
    SetDeadline(&context_, kGenerous);
    stream_ = stub_->Work(&context_);
  }

  v1::ActorMessage* message() {
    message_.Clear();
    return &message_;
  }
  bool Send() { return stream_->Write(message_); }

  void Hello(const std::string& id, const std::string& protocol = "1") {
    message()->mutable_hello()->set_actor_id(id);
    message_.mutable_hello()->set_protocol(protocol);
    Send();
  }
  void Ready(uint64_t version) {
    message()->mutable_ready()->set_job_id("job-1");
    message_.mutable_ready()->set_policy_version(version);
    Send();
  }
  void Credit(uint32_t leases) {
    message()->mutable_credit()->set_leases(leases);
    Send();
  }
  void Group(const v1::Lease& lease, int i, uint64_t version) {
    v1::Result* result = message()->mutable_result();
    result->set_job_id(lease.job_id());
    result->set_epoch(lease.epoch());
    v1::ScoredGroup* group = result->mutable_group();
    group->set_ordinal(lease.prompts(i).ordinal());
    group->set_attempt(lease.prompts(i).attempt());
    group->set_lease_id(lease.lease_id());
    group->set_behavior_version(version);
    group->set_catalog_version("c1");
    group->set_score_status(v1::SCORE_STATUS_NOT_ASKED);
    for (int g = 0; g < 2; ++g) {
      v1::Completion* completion = group->add_completions();
      completion->add_tokens(3 + g);
      completion->set_leaf(g);
      completion->add_log_probs_full(-1.f);
      completion->add_log_probs_trie(-1.f);
    }
    Send();
  }

  // The next message; the test's own mistake if the stream ends instead.
  v1::RankMessage Next() {
    v1::RankMessage next;
    EXPECT_TRUE(stream_->Read(&next)) << "the stream ended";
    return next;
  }
  bool WritesDone() { return stream_->WritesDone(); }
  absl::Status Finish() {
    v1::RankMessage rest;
    while (stream_->Read(&rest)) {
    }
    return FromGrpc(stream_->Finish());
  }
  void Cancel() { context_.TryCancel(); }

 private:
  std::unique_ptr<v1::RolloutService::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::ActorMessage, v1::RankMessage>> stream_;
  v1::ActorMessage message_;
};

std::vector<Prompt> Prompts(uint64_t first, uint64_t count) {
  std::vector<Prompt> prompts(count);
  for (uint64_t i = 0; i < count; ++i) {
    prompts[i].ordinal = first + i;
    prompts[i].user = 5;
    prompts[i].history = {1, 2};
  }
  return prompts;
}

class RolloutServiceTest : public testing::Test {
 protected:
  void SetUp() override {
    hub_ = std::make_unique<RolloutHub>(RolloutHub::Options{MonotonicClock(), nullptr, nullptr, absl::Minutes(10)});
    service_ = std::make_unique<GrpcRolloutService>(hub_.get(), &lines_);
    auto server = RpcServer::Start("127.0.0.1:0", {service_.get()});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  void TearDown() override {
    hub_->DisconnectActors(absl::UnavailableError("the test is over"));
    server_->Shutdown(absl::ZeroDuration());
  }

  void StartJob(int staleness = 2, SamplerKind sampler = SamplerKind::kSample) {
    HubJob job;
    job.job_id = "job-1";
    job.epoch = 4;
    job.seed = 9;
    job.model_config_json = "{}";
    job.catalog_version = "c1";
    job.levels = 1;
    job.groups_per_step = 4;
    job.options.staleness = staleness;
    job.options.group_size = 2;
    job.options.lease_groups = 2;
    job.options.objective = ObjectiveKind::kNllOnly;
    job.options.sampler = sampler;
    ASSERT_TRUE(hub_->StartJob(job).ok());
  }
  void Publish(uint64_t version) {
    auto snapshot = std::make_shared<PolicySnapshot>();
    snapshot->version = version;
    snapshot->payload = "1234";
    snapshot->checksum = "abcd";
    hub_->Publish(snapshot);
  }

  JobLines lines_{{}, [] { return absl::UnixEpoch(); }};
  std::unique_ptr<RolloutHub> hub_;
  std::unique_ptr<GrpcRolloutService> service_;
  std::unique_ptr<RpcServer> server_;
};

TEST_F(RolloutServiceTest, WhatActorsSayIsKeptForTheJobsLogAndNoMoreThanABeatMayCarry) {
  FakeActor actor(server_->address());
  actor.Hello("actor-7");
  v1::Heartbeat* beat = actor.message()->mutable_heartbeat();
  for (int i = 0; i < 30; ++i) {
    v1::ActorLine* line = beat->add_lines();
    line->set_job_id("job-1");
    line->set_level(i == 0 ? "error" : "of a later release");
    line->set_text(absl::StrCat("line ", i));
    line->mutable_time()->set_seconds(100);
    line->mutable_time()->set_nanos(5000);
  }
  actor.Send();
  actor.message()->mutable_draining()->set_reason("done");
  actor.Send();
  actor.WritesDone();
  EXPECT_TRUE(actor.Finish().ok());

  const std::vector<JobLine> lines = lines_.Take("job-1", 100);
  ASSERT_EQ(lines.size(), 20u);
  EXPECT_EQ(lines[0].source, "actor-7");
  EXPECT_EQ(lines[0].level, "error");
  EXPECT_EQ(lines[0].text, "line 0");
  EXPECT_EQ(lines[0].time, absl::FromUnixMicros(100'000'005));
  EXPECT_EQ(lines[19].level, "info");
  EXPECT_EQ(lines[19].text, "line 19");
}

TEST_F(RolloutServiceTest, AJobThatSearchesSaysHowWithItsDefaultsResolved) {
  StartJob(2, SamplerKind::kValueGuided);
  Publish(3);
  FakeActor actor(server_->address());
  actor.Hello("a");
  const v1::DecodeSettings decode = actor.Next().welcome().decode();
  EXPECT_EQ(decode.sampler(), v1::SAMPLER_VALUE_GUIDED);
  EXPECT_EQ(decode.value_search().initial_width(), 1u);  // half of the group
  EXPECT_EQ(decode.value_search().entropy_weight(), 0.1);
  EXPECT_EQ(decode.value_search().exploration(), 1);
  EXPECT_EQ(decode.value_search().widening(), 1);
  EXPECT_EQ(decode.value_search().widening_power(), 0.5);
}

TEST_F(RolloutServiceTest, AFullLeaseCycle) {
  StartJob();
  Publish(3);
  ASSERT_TRUE(hub_->Issue(0, Prompts(0, 4)).ok());
  FakeActor actor(server_->address());
  actor.Hello("a");
  const v1::Welcome welcome = actor.Next().welcome();
  EXPECT_EQ(welcome.job_id(), "job-1");
  EXPECT_EQ(welcome.epoch(), 4u);
  EXPECT_EQ(welcome.decode().sampler(), v1::SAMPLER_SAMPLE);
  EXPECT_EQ(welcome.decode().group_size(), 2u);
  EXPECT_FALSE(welcome.reward().enabled());
  const v1::PolicyOffer offer = actor.Next().policy_offer();
  EXPECT_EQ(offer.policy_version(), 3u);
  EXPECT_EQ(offer.payload_bytes(), 4u);
  EXPECT_EQ(offer.checksum(), "abcd");
  actor.Credit(2);
  actor.Ready(3);
  for (int block = 0; block < 2; ++block) {
    v1::RankMessage next = actor.Next();
    while (!next.has_lease()) next = actor.Next();  // an ack of the block before
    const v1::Lease lease = next.lease();
    EXPECT_EQ(lease.kind(), v1::LEASE_KIND_ROLLOUT);
    EXPECT_EQ(lease.prompts_size(), 2);
    EXPECT_EQ(lease.prompts(0).user(), 5);
    EXPECT_EQ(lease.prompts(0).history_size(), 2);
    EXPECT_EQ(lease.prompts(0).target(), -1);
    for (int i = 0; i < 2; ++i) actor.Group(lease, i, 3);
  }
  const auto groups = hub_->Wait(0, kGenerous);
  ASSERT_TRUE(groups.ok()) << groups.status();
  for (const TakenGroup& taken : *groups) {
    ASSERT_TRUE(taken.group.has_value());
    EXPECT_EQ(taken.group->completions[1].tokens, std::vector<int32_t>{4});
    EXPECT_EQ(taken.group->score_status, ScoreStatus::kNotAsked);
  }
  actor.WritesDone();
  EXPECT_TRUE(actor.Finish().ok());
  EXPECT_EQ(hub_->num_actors(), 0);
}

TEST_F(RolloutServiceTest, AcksSayWhatBecameOfAResult) {
  StartJob();
  Publish(3);
  ASSERT_TRUE(hub_->Issue(0, Prompts(0, 2)).ok());
  FakeActor actor(server_->address());
  actor.Hello("a");
  actor.Next();
  actor.Next();
  actor.Ready(3);
  actor.Credit(1);
  const v1::Lease lease = actor.Next().lease();
  actor.Group(lease, 0, 3);
  EXPECT_TRUE(actor.Next().ack().accepted());
  actor.Group(lease, 0, 3);
  const v1::Ack again = actor.Next().ack();
  EXPECT_FALSE(again.accepted());
  EXPECT_EQ(again.reason(), "duplicate");
  EXPECT_EQ(again.ordinal(), 0u);
}

TEST_F(RolloutServiceTest, TheProtocolIsKept) {
  {
    FakeActor actor(server_->address());
    actor.Hello("a", "2");
    const absl::Status status = actor.Finish();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()), HasSubstr("protocol 1"));
  }
  {
    FakeActor actor(server_->address());
    actor.Credit(1);
    EXPECT_EQ(actor.Finish().code(), absl::StatusCode::kInvalidArgument);
  }
  {
    FakeActor actor(server_->address());
    actor.Hello("");
    EXPECT_EQ(actor.Finish().code(), absl::StatusCode::kInvalidArgument);
  }
  {
    FakeActor actor(server_->address());
    actor.Hello("a");
    actor.message()->mutable_result()->set_job_id("job-1");  // without an outcome
    actor.Send();
    EXPECT_EQ(actor.Finish().code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_EQ(hub_->num_actors(), 0);
}

TEST_F(RolloutServiceTest, ABrokenStreamGivesItsLeasesToAnother) {
  StartJob();
  Publish(1);
  ASSERT_TRUE(hub_->Issue(0, Prompts(0, 2)).ok());
  auto first = std::make_unique<FakeActor>(server_->address());
  first->Hello("a");
  first->Next();
  first->Next();
  first->Ready(1);
  first->Credit(1);
  EXPECT_EQ(first->Next().lease().prompts(0).attempt(), 1u);
  FakeActor second(server_->address());
  second.Hello("b");
  second.Next();
  second.Next();
  second.Ready(1);
  second.Credit(1);
  first->Cancel();
  EXPECT_EQ(second.Next().lease().prompts(0).attempt(), 2u);
  first->Finish().IgnoreError();
}

TEST_F(RolloutServiceTest, ADrainingRankEndsItsStreamsWithUnavailable) {
  StartJob();
  FakeActor actor(server_->address());
  actor.Hello("a");
  actor.Next();
  hub_->EndJob();
  EXPECT_EQ(actor.Next().job_ended().job_id(), "job-1");
  hub_->DisconnectActors(absl::UnavailableError("the rank drains"));
  const absl::Status status = actor.Finish();
  EXPECT_EQ(status, absl::UnavailableError("the rank drains"));
}

TEST_F(RolloutServiceTest, ManyStreamsComeAndGoAtOnce) {
  StartJob();
  Publish(1);
  ASSERT_TRUE(hub_->Issue(0, Prompts(0, 4)).ok());
  std::vector<Thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.push_back(StartThread("actor", [this, t] {
      for (int round = 0; round < 10; ++round) {
        FakeActor actor(server_->address());
        actor.Hello("actor-" + std::to_string(t));
        EXPECT_TRUE(actor.Next().has_welcome());
        EXPECT_TRUE(actor.Next().has_policy_offer());
        actor.Ready(1);
        actor.Credit(1);
        if (round % 2 == 0) {
          actor.Cancel();
        } else {
          actor.WritesDone();
        }
        actor.Finish().IgnoreError();
      }
    }));
  }
  threads.clear();
  EXPECT_TRUE(hub_->CheckLedger().ok()) << hub_->CheckLedger();
}

}  // namespace
}  // namespace sluice::learner
