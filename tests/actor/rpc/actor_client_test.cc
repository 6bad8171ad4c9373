#include "actor/rpc/actor_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "actor/journal/journal.h"
#include "common/file/file.h"
#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "common/rpc/status.h"
#include "common/rpc/stream_sender.h"
#include "common/sync/thread.h"
#include "common/transfer/catalog_document.h"
#include "sluice/v1/member.grpc.pb.h"
#include "tests/actor/rpc/fake_policy_service.h"

namespace sluice::actor {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr absl::Duration kGenerous = absl::Seconds(60);

// One stream of the fake rank, seen from the test.
class FakeStream {
 public:
  // The next message that is not a heartbeat; empty if the actor has said everything.
  std::optional<v1::ActorMessage> Next() {
    while (std::optional<v1::ActorMessage> message = incoming_.PopFor(kGenerous)) {
      if (!message->has_heartbeat()) return message;
    }
    EXPECT_TRUE(incoming_.closed()) << "nothing came in time";
    return std::nullopt;
  }
  v1::ActorMessage Expect(v1::ActorMessage::MessageCase kind) {
    std::optional<v1::ActorMessage> message = Next();
    EXPECT_TRUE(message.has_value() && message->message_case() == kind)
        << "want message " << kind << ", got " << (message ? message->ShortDebugString() : "the end");
    return message.value_or(v1::ActorMessage());
  }
  // The next line for the job's log.
  v1::ActorLine ExpectLine() {
    while (lines_.empty()) {
      const std::optional<v1::ActorMessage> message = incoming_.PopFor(kGenerous);
      if (!message.has_value()) {
        ADD_FAILURE() << "no line";
        return {};
      }
      if (!message->has_heartbeat()) continue;
      lines_.insert(lines_.end(), message->heartbeat().lines().begin(), message->heartbeat().lines().end());
    }
    const v1::ActorLine line = lines_.front();
    lines_.erase(lines_.begin());
    return line;
  }
  v1::Heartbeat ExpectHeartbeat() {
    while (std::optional<v1::ActorMessage> message = incoming_.PopFor(kGenerous)) {
      if (message->has_heartbeat()) return message->heartbeat();
    }
    ADD_FAILURE() << "no heartbeat";
    return {};
  }
  void Send(const v1::RankMessage& message) { sender_->Send(message); }
  void End(const absl::Status& status) { sender_->Close(status); }

 private:
  friend class FakeRank;
  BoundedQueue<v1::ActorMessage> incoming_{10'000};
  std::vector<v1::ActorLine> lines_;  // of the test's thread
  std::optional<StreamSender<v1::RankMessage>> sender_;
};

// Useful for: playing the rank by hand.
class FakeRank : public v1::RolloutService::CallbackService {
 public:
  grpc::ServerBidiReactor<v1::ActorMessage, v1::RankMessage>* Work(grpc::CallbackServerContext*) override {
    auto stream = std::make_shared<FakeStream>();
    auto* reactor = new Reactor(stream);
    streams_.Push(stream);
    return reactor;
  }
  std::shared_ptr<FakeStream> NextStream() {
    auto stream = streams_.PopFor(kGenerous);
    EXPECT_TRUE(stream.has_value()) << "no actor came";
    return stream.value_or(nullptr);
  }

 private:
  class Reactor : public grpc::ServerBidiReactor<v1::ActorMessage, v1::RankMessage> {
   public:
    explicit Reactor(std::shared_ptr<FakeStream> stream) : stream_(std::move(stream)) {
      stream_->sender_.emplace(
          StreamSender<v1::RankMessage>::Limits(), [this](const v1::RankMessage* message) { StartWrite(message); },
          [this](const absl::Status& status) { Finish(ToGrpc(status)); });
      StartRead(&message_);
    }
    void OnReadDone(bool ok) override {
      if (!ok) {
        stream_->incoming_.Close();
        stream_->sender_->Close(absl::OkStatus());
        return;
      }
      stream_->incoming_.TryPush(message_);
      StartRead(&message_);
    }
    void OnWriteDone(bool ok) override { stream_->sender_->OnWriteDone(ok); }
    void OnCancel() override { stream_->sender_->Abort(absl::CancelledError("cancelled")); }
    void OnDone() override { delete this; }

   private:
    const std::shared_ptr<FakeStream> stream_;
    v1::ActorMessage message_;
  };

  BoundedQueue<std::shared_ptr<FakeStream>> streams_{100};
};

// Useful for: a coordinator that knows one rank and remembers what was to be avoided.
class FakeCoordinator : public v1::MemberService::Service {
 public:
  grpc::Status AttachActor(grpc::ServerContext*, const v1::AttachActorRequest* request,
                           v1::AttachActorResponse* response) override {
    MutexLock lock(&mutex_);
    avoided_.insert(avoided_.end(), request->avoid().begin(), request->avoid().end());
    if (answers_.empty()) return grpc::Status(grpc::StatusCode::UNAVAILABLE, "no rank yet");
    response->set_address(answers_.front());
    if (answers_.size() > 1) answers_.erase(answers_.begin());
    return grpc::Status::OK;
  }
  void Answer(std::vector<std::string> addresses) {
    MutexLock lock(&mutex_);
    answers_ = std::move(addresses);
  }
  std::vector<std::string> avoided() const {
    MutexLock lock(&mutex_);
    return avoided_;
  }

 private:
  mutable Mutex mutex_;
  std::vector<std::string> answers_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> avoided_ ABSL_GUARDED_BY(mutex_);
};

// Useful for: remembering what was loaded.
class RecordingLoader : public PolicyLoader {
 public:
  absl::Status SetJob(const std::string& config, std::shared_ptr<const Trie> trie) override {
    if (unfit_) {
      tries_.Push(config);
      return absl::InvalidArgumentError("no layer of this model is known here");
    }
    Note("job " + config + " with " + std::to_string(trie->num_items()) + " items");
    return absl::OkStatus();
  }
  absl::StatusOr<absl::Span<char>> Stage(uint64_t bytes) override {
    shadow_.assign(bytes, '?');
    return absl::MakeSpan(shadow_.data(), shadow_.size());
  }
  absl::Status Commit(uint64_t version) override {
    Note("weights " + std::to_string(version) + " " + shadow_);
    active_ = std::make_shared<const std::string>(shadow_);
    return absl::OkStatus();
  }
  void EndJob() override { Note("end"); }
  HeldWeights Active() override { return {active_, *active_}; }

  std::vector<std::string> notes() const {
    MutexLock lock(&mutex_);
    return notes_;
  }

  // While true no job's model can be loaded.
  void SetUnfit(bool unfit) { unfit_ = unfit; }
  // Waits for such a try. False: none came in time.
  bool AwaitTry() { return tries_.PopFor(kGenerous).has_value(); }
  size_t untold_tries() const { return tries_.size(); }

 private:
  void Note(std::string note) {
    MutexLock lock(&mutex_);
    notes_.push_back(std::move(note));
  }
  std::string shadow_;
  std::shared_ptr<const std::string> active_;
  std::atomic<bool> unfit_{false};
  BoundedQueue<std::string> tries_{1000};
  mutable Mutex mutex_;
  std::vector<std::string> notes_ ABSL_GUARDED_BY(mutex_);
};

// Useful for: a weight group whose other members are the test. Bytes come when they are given, and not before.
class FakeReceiver : public WeightReceiver {
 public:
  absl::Status Receive(const GroupPlace& place, absl::Span<char> bytes, uint64_t chunk_bytes,
                       absl::Duration timeout) override {
    EXPECT_EQ(chunk_bytes, 8u);
    EXPECT_EQ(timeout, absl::Seconds(3));
    places_.Push(place);
    while (std::optional<std::string> given = given_.PopFor(kGenerous)) {
      if (*given == "abort") {
        if (aborted_ < place.epoch) continue;  // of an earlier group
        return absl::AbortedError("the group was given up");
      }
      if (*given == "fail") return absl::UnavailableError("a peer is gone");
      if (given->size() != bytes.size()) return absl::InternalError("the test gives what does not fit");
      std::copy(given->begin(), given->end(), bytes.begin());
      return absl::OkStatus();
    }
    return absl::InternalError("nothing came in time");
  }
  void Abort(uint64_t epoch) override {
    aborted_ = epoch;
    given_.TryPush("abort");
  }

  void Give(std::string bytes) { given_.Push(std::move(bytes)); }
  GroupPlace NextPlace() {
    const std::optional<GroupPlace> place = places_.PopFor(kGenerous);
    EXPECT_TRUE(place.has_value()) << "the actor does not take part";
    return place.value_or(GroupPlace());
  }
  uint64_t aborted() const { return aborted_; }

 private:
  BoundedQueue<GroupPlace> places_{10};
  BoundedQueue<std::string> given_{100};
  std::atomic<uint64_t> aborted_{0};
};

class ActorClientTest : public testing::Test {
 protected:
  ActorClientTest() : trie_(Trie::Build(2, {3, 5, 4, 5}).value()) {}

  void SetUp() override {
    policies_.PutCatalog(CatalogToJson(trie_));
    policies_.Put(1, "first weights");
    policies_.Put(2, "second weights");
    auto server = RpcServer::Start("127.0.0.1:0", {&rank_, &policies_, &coordinator_});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    options_.actor_id = "a";
    options_.learner = server_->address();
    options_.has_rewards = false;
    options_.heartbeat = absl::Milliseconds(20);
    options_.reconnect.initial_backoff = absl::Milliseconds(5);
    options_.reconnect.max_backoff = absl::Milliseconds(50);
    options_.now = MonotonicClock();
    options_.metrics = &metrics_;
  }

  void TearDown() override {
    if (client_ != nullptr) client_->Drain("the test is over");
    release_.Notify();
    runner_.Join();
    server_->Shutdown(absl::ZeroDuration());
  }

  void Start() {
    client_ = std::make_unique<ActorClient>(
        options_, &loader_, [this](const JobContext& job, const LeaseBlock& block) { return Execute(job, block); });
    runner_ = StartThread("run", [this] { result_ = client_->Run(); });
  }

  absl::StatusOr<std::vector<PromptOutcome>> Execute(const JobContext& job, const LeaseBlock& block) {
    ++executions_;
    EXPECT_EQ(job.job_id, "job-1");
    if (block.seed == 666) return absl::InternalError("the model caught fire");
    if (block.seed == 999) {
      started_.Notify();
      release_.Wait();
    }
    std::vector<PromptOutcome> outcomes;
    for (const LeasedPrompt& leased : block.prompts) {
      ScoredGroup group;
      group.ordinal = leased.prompt.ordinal;
      group.attempt = leased.prompt.attempt;
      group.lease_id = block.lease_id;
      if (block.seed == 555) group.score_status = ScoreStatus::kOk;
      if (block.seed == 444) {
        group.score_status = ScoreStatus::kUnavailable;
        group.score_error = "the ranker failed: no GPU is left";
      }
      outcomes.push_back(PromptOutcome{group.ordinal, group.attempt, block.lease_id, group});
    }
    return outcomes;
  }

  v1::RankMessage Welcome(bool scored = false) const {
    v1::RankMessage message;
    v1::Welcome* welcome = message.mutable_welcome();
    welcome->set_job_id("job-1");
    welcome->set_epoch(4);
    welcome->set_model_config_json("tiny");
    welcome->set_catalog_version(trie_.version());
    welcome->mutable_decode()->set_sampler(v1::SAMPLER_BEAM);
    welcome->mutable_decode()->set_group_size(2);
    welcome->mutable_decode()->set_temperature(1);
    welcome->mutable_decode()->set_beam_space(v1::LOG_PROB_SPACE_FULL);
    welcome->mutable_reward()->set_enabled(scored);
    welcome->mutable_reward()->set_ranker("blend");
    welcome->mutable_reward()->set_deadline_s(1);
    return message;
  }
  v1::RankMessage Offer(uint64_t version) const {
    v1::RankMessage message;
    *message.mutable_policy_offer() = policies_.Offer("job-1", version);
    return message;
  }
  v1::RankMessage StagedOffer(uint64_t version) const {
    v1::RankMessage message = Offer(version);
    message.mutable_policy_offer()->set_staged(true);
    return message;
  }
  static v1::RankMessage Transfer(uint64_t version, const std::string& source = "") {
    v1::RankMessage message;
    message.mutable_policy_transfer()->set_job_id("job-1");
    message.mutable_policy_transfer()->set_policy_version(version);
    message.mutable_policy_transfer()->set_source(source);
    return message;
  }
  static v1::RankMessage Broadcast(uint64_t version, uint64_t group_epoch) {
    v1::RankMessage message;
    v1::PolicyBroadcast* broadcast = message.mutable_policy_broadcast();
    broadcast->set_job_id("job-1");
    broadcast->set_policy_version(version);
    broadcast->set_group_epoch(group_epoch);
    broadcast->set_group_rank(2);
    broadcast->set_world_size(4);
    broadcast->set_timeout_s(3);
    broadcast->set_chunk_bytes(8);
    return message;
  }
  static v1::RankMessage Commit(uint64_t version) {
    v1::RankMessage message;
    message.mutable_policy_commit()->set_job_id("job-1");
    message.mutable_policy_commit()->set_policy_version(version);
    return message;
  }
  // Greeted, with room for `version`.
  std::shared_ptr<FakeStream> AttachPrepared(uint64_t version) {
    std::shared_ptr<FakeStream> stream = rank_.NextStream();
    EXPECT_TRUE(stream->Expect(v1::ActorMessage::kHello).hello().staged_weights());
    stream->Send(Welcome());
    stream->Send(StagedOffer(version));
    EXPECT_EQ(stream->Expect(v1::ActorMessage::kPrepared).prepared().policy_version(), version);
    return stream;
  }
  v1::RankMessage Lease(uint64_t id, uint64_t seed = 1, int prompts = 2) const {
    v1::RankMessage message;
    v1::Lease* lease = message.mutable_lease();
    lease->set_job_id("job-1");
    lease->set_epoch(4);
    lease->set_lease_id(id);
    lease->set_kind(v1::LEASE_KIND_ROLLOUT);
    lease->set_policy_version(1);
    lease->set_deadline_s(60);
    lease->set_seed(seed);
    for (int i = 0; i < prompts; ++i) {
      lease->add_prompts()->set_ordinal(10 * id + i);
      lease->mutable_prompts(i)->set_attempt(1);
    }
    return message;
  }

  // Until the first credit.
  std::shared_ptr<FakeStream> Attach() {
    std::shared_ptr<FakeStream> stream = rank_.NextStream();
    const v1::Hello hello = stream->Expect(v1::ActorMessage::kHello).hello();
    EXPECT_EQ(hello.actor_id(), "a");
    EXPECT_EQ(hello.protocol(), "1");
    stream->Send(Welcome());
    stream->Send(Offer(1));
    EXPECT_EQ(stream->Expect(v1::ActorMessage::kReady).ready().policy_version(), 1u);
    EXPECT_EQ(stream->Expect(v1::ActorMessage::kCredit).credit().leases(), 2u);
    return stream;
  }

  absl::Status Finished() {
    runner_.Join();
    return result_;
  }

  Trie trie_;
  FakeRank rank_;
  FakePolicyService policies_{5};
  FakeCoordinator coordinator_;
  std::unique_ptr<RpcServer> server_;
  RecordingLoader loader_;
  Metrics metrics_;
  ActorClientOptions options_;
  std::unique_ptr<ActorClient> client_;
  std::atomic<int> executions_{0};
  Notification started_;
  Notification release_;
  absl::Status result_;
  Thread runner_;
};

TEST_F(ActorClientTest, WorksOnLeasesOnceItsPolicyIsVerified) {
  Start();
  const auto stream = Attach();
  EXPECT_THAT(loader_.notes(), ElementsAre("job tiny with 2 items", "weights 1 first weights"));
  stream->Send(Lease(7));
  for (uint64_t ordinal : {70u, 71u}) {
    const v1::Result result = stream->Expect(v1::ActorMessage::kResult).result();
    EXPECT_EQ(result.group().ordinal(), ordinal);
    EXPECT_EQ(result.group().lease_id(), 7u);
    EXPECT_EQ(result.job_id(), "job-1");
    EXPECT_EQ(result.epoch(), 4u);
  }
  EXPECT_EQ(stream->Expect(v1::ActorMessage::kCredit).credit().leases(), 1u);
  EXPECT_THAT(metrics_.Text(), HasSubstr("sluice_groups_sampled_total 2"));
  EXPECT_THAT(metrics_.Text(), HasSubstr("sluice_leases_total{outcome=\"done\"} 1"));
}

TEST_F(ActorClientTest, TheJournalHasItsLineBeforeAResultLeavesAndTheAnswerAfterwards) {
  JournalOptions journal_options;
  journal_options.folder = absl::StrCat(testing::TempDir(), "/actor-client-journal");
  ASSERT_TRUE(RemoveAll(journal_options.folder).ok());
  journal_options.actor_id = "a";
  journal_options.longest_wait = kGenerous;
  journal_options.wall = WallClock();
  journal_options.now = MonotonicClock();
  const std::unique_ptr<Journal> journal = *Journal::Open(journal_options);
  Thread writer = StartThread("journal", [&] { journal->Run(); });
  const auto text = [&] { return *ReadFile(journal_options.folder + "/journal-00000001.jsonl"); };
  options_.journal = journal.get();
  Start();
  const auto stream = Attach();
  stream->Send(Lease(7));
  stream->Expect(v1::ActorMessage::kResult);
  EXPECT_THAT(text(), HasSubstr(R"({"event":"sent","job":"job-1","epoch":4,"lease":7,"groups":[[70,1],[71,1]],)"));
  stream->Expect(v1::ActorMessage::kResult);
  stream->Expect(v1::ActorMessage::kCredit);
  v1::RankMessage answer;
  answer.mutable_ack()->set_ordinal(70);
  answer.mutable_ack()->set_attempt(1);
  answer.mutable_ack()->set_reason("late");
  stream->Send(answer);
  stream->Send(Offer(2));  // what comes after the answer: its Ready says that the answer was taken
  EXPECT_EQ(stream->Expect(v1::ActorMessage::kReady).ready().policy_version(), 2u);
  client_->Drain("the test is over");
  EXPECT_TRUE(Finished().ok());
  journal->Close();
  writer.Join();
  EXPECT_THAT(text(), HasSubstr(R"({"event":"refused","group":[70,1],"reason":"late",)"));
}

TEST_F(ActorClientTest, DamagedWeightsAreNeverLoaded) {
  policies_.DamageNext(1);
  Start();
  // The damaged chunk may be one of the catalog's; whichever it is, only whole things arrive.
  Attach();
  EXPECT_THAT(loader_.notes(), ElementsAre("job tiny with 2 items", "weights 1 first weights"));
  EXPECT_THAT(metrics_.Text(), HasSubstr("sluice_weight_checksum_mismatch_total 1"));
}

TEST_F(ActorClientTest, AStagedVersionIsCommittedOnlyWhenTheRankSaysSo) {
  Start();
  const auto stream = AttachPrepared(1);
  EXPECT_THAT(loader_.notes(), ElementsAre("job tiny with 2 items"));
  stream->Send(Transfer(1));
  const v1::Verified verified = stream->Expect(v1::ActorMessage::kVerified).verified();
  EXPECT_EQ(verified.policy_version(), 1u);
  EXPECT_EQ(verified.checksum(), PayloadChecksum("first weights"));
  EXPECT_FALSE(verified.peer_failed());
  EXPECT_THAT(loader_.notes(), ElementsAre("job tiny with 2 items"));
  stream->Send(Commit(1));
  EXPECT_EQ(stream->Expect(v1::ActorMessage::kReady).ready().policy_version(), 1u);
  stream->Expect(v1::ActorMessage::kCredit);
  EXPECT_THAT(loader_.notes(), ElementsAre("job tiny with 2 items", "weights 1 first weights"));
}

class ActorBroadcastTest : public ActorClientTest {
 protected:
  void SetUp() override {
    ActorClientTest::SetUp();
    options_.weight_group = "gloo";
    options_.make_receiver = [this](std::shared_ptr<KvStore>) { return receiver_; };
  }
  const std::shared_ptr<FakeReceiver> receiver_ = std::make_shared<FakeReceiver>();
};

TEST_F(ActorBroadcastTest, AVersionComesByTheBroadcastAndIsProvenByItsHash) {
  Start();
  const auto stream = AttachPrepared(1);
  stream->Send(Broadcast(1, 7));
  const GroupPlace place = receiver_->NextPlace();
  EXPECT_EQ(place.epoch, 7u);
  EXPECT_EQ(place.rank, 2);
  EXPECT_EQ(place.world_size, 4);
  receiver_->Give("first weights");
  EXPECT_EQ(stream->Expect(v1::ActorMessage::kVerified).verified().checksum(), PayloadChecksum("first weights"));
  stream->Send(Commit(1));
  EXPECT_EQ(stream->Expect(v1::ActorMessage::kReady).ready().policy_version(), 1u);
  EXPECT_EQ(receiver_->aborted(), 0u);  // the group is used again
  EXPECT_TRUE(policies_.offsets().empty());
  EXPECT_THAT(loader_.notes(), ElementsAre("job tiny with 2 items", "weights 1 first weights"));
  EXPECT_THAT(metrics_.Text(), HasSubstr("sluice_weight_broadcast_bytes_total 13"));
}

TEST_F(ActorBroadcastTest, OtherBytesAreNeitherHiddenNorCommitted) {
  Start();
  const auto stream = AttachPrepared(1);
  stream->Send(Broadcast(1, 7));
  receiver_->Give("fault weights");
  EXPECT_EQ(stream->Expect(v1::ActorMessage::kVerified).verified().checksum(), PayloadChecksum("fault weights"));
  stream->Send(Commit(1));
  const v1::TransferFailed failed = stream->Expect(v1::ActorMessage::kTransferFailed).transfer_failed();
  EXPECT_EQ(failed.policy_version(), 1u);
  EXPECT_EQ(failed.group_epoch(), 0u);
  stream->Send(Transfer(1));
  EXPECT_EQ(stream->Expect(v1::ActorMessage::kVerified).verified().checksum(), PayloadChecksum("first weights"));
  EXPECT_THAT(loader_.notes(), ElementsAre("job tiny with 2 items"));
}

TEST_F(ActorBroadcastTest, ABroadcastThatFailsIsTold) {
  Start();
  const auto stream = AttachPrepared(1);
  stream->Send(Broadcast(1, 7));
  receiver_->Give("fail");
  const v1::TransferFailed failed = stream->Expect(v1::ActorMessage::kTransferFailed).transfer_failed();
  EXPECT_EQ(failed.policy_version(), 1u);
  EXPECT_EQ(failed.reason(), "a peer is gone");
  EXPECT_EQ(failed.group_epoch(), 7u);
}

TEST_F(ActorBroadcastTest, ANewerOrderEndsABroadcastThatHangsWithoutAWord) {
  Start();
  const auto stream = AttachPrepared(1);
  stream->Send(Broadcast(1, 7));
  receiver_->NextPlace();
  stream->Send(Transfer(1));
  EXPECT_EQ(stream->Expect(v1::ActorMessage::kVerified).verified().checksum(), PayloadChecksum("first weights"));
  EXPECT_EQ(receiver_->aborted(), 7u);
  stream->Send(Commit(1));
  stream->Expect(v1::ActorMessage::kReady);
}

TEST_F(ActorBroadcastTest, TheEndOfTheStreamEndsABroadcastThatHangs) {
  Start();
  const auto stream = AttachPrepared(1);
  stream->Send(Broadcast(1, 7));
  receiver_->NextPlace();
  stream->End(absl::UnavailableError("the rank stops"));
  AttachPrepared(1);  // it is back, and its fetching thread is free
  EXPECT_EQ(receiver_->aborted(), 7u);
}

TEST_F(ActorBroadcastTest, TheEndOfTheJobEndsTheGroup) {
  Start();
  const auto stream = AttachPrepared(1);
  stream->Send(Broadcast(1, 7));
  receiver_->NextPlace();
  v1::RankMessage ended;
  ended.mutable_job_ended()->set_job_id("job-1");
  stream->Send(ended);
  stream->Send(Welcome());
  stream->Send(StagedOffer(2));
  EXPECT_EQ(stream->Expect(v1::ActorMessage::kPrepared).prepared().policy_version(), 2u);
  EXPECT_EQ(receiver_->aborted(), 7u);
}

TEST_F(ActorBroadcastTest, AnActorThatLeavesIsNotHeldUp) {
  Start();
  const auto stream = AttachPrepared(1);
  stream->Send(Broadcast(1, 7));
  receiver_->NextPlace();
  client_->Drain("the test lets it go");
  stream->Expect(v1::ActorMessage::kDraining);
  EXPECT_TRUE(Finished().ok());
}

TEST_F(ActorBroadcastTest, APlaceThatThereIsNotIsRefused) {
  Start();
  const auto stream = AttachPrepared(1);
  v1::RankMessage wrong = Broadcast(1, 7);
  wrong.mutable_policy_broadcast()->set_group_rank(4);
  stream->Send(wrong);
  EXPECT_EQ(stream->Expect(v1::ActorMessage::kTransferFailed).transfer_failed().reason(),
            "the rank names no place in a weight group");
}

TEST_F(ActorClientTest, WithoutAWeightGroupABroadcastIsRefusedAndSaysWhy) {
  Start();
  const auto stream = AttachPrepared(1);
  stream->Send(Broadcast(1, 7));
  EXPECT_EQ(stream->Expect(v1::ActorMessage::kTransferFailed).transfer_failed().reason(),
            "this actor is in no weight group");
}

TEST_F(ActorClientTest, WhatIsAskedTwiceIsDoneOnce) {
  Start();
  const auto stream = AttachPrepared(1);
  stream->Send(Transfer(1));
  stream->Expect(v1::ActorMessage::kVerified);
  stream->Send(StagedOffer(1));  // the rank's answer was lost
  stream->Expect(v1::ActorMessage::kVerified);
  stream->Send(Transfer(1));
  stream->Expect(v1::ActorMessage::kVerified);
  for (int time = 0; time < 2; ++time) {
    stream->Send(Commit(1));
    EXPECT_EQ(stream->Expect(v1::ActorMessage::kReady).ready().policy_version(), 1u);
    if (time == 0) stream->Expect(v1::ActorMessage::kCredit);
  }
  stream->Send(StagedOffer(1));
  EXPECT_EQ(stream->Expect(v1::ActorMessage::kVerified).verified().checksum(), PayloadChecksum("first weights"));
  EXPECT_EQ(policies_.offsets().size(), 1u);  // one fetch
  EXPECT_THAT(loader_.notes(), ElementsAre("job tiny with 2 items", "weights 1 first weights"));
}

TEST_F(ActorClientTest, NothingThatWasNotVerifiedIsCommitted) {
  Start();
  const auto stream = AttachPrepared(1);
  stream->Send(Commit(1));
  EXPECT_EQ(stream->Expect(v1::ActorMessage::kTransferFailed).transfer_failed().policy_version(), 1u);
  stream->Send(Commit(2));  // never offered
  EXPECT_EQ(stream->Expect(v1::ActorMessage::kTransferFailed).transfer_failed().policy_version(), 2u);
  EXPECT_THAT(loader_.notes(), ElementsAre("job tiny with 2 items"));
}

TEST_F(ActorClientTest, AVersionThatIsNoLongerKeptIsSaidToBeAndTheSessionGoesOn) {
  Start();
  const auto stream = AttachPrepared(1);
  policies_.Forget(1);
  stream->Send(Transfer(1));
  EXPECT_EQ(stream->Expect(v1::ActorMessage::kTransferFailed).transfer_failed().policy_version(), 1u);
  stream->Send(StagedOffer(2));
  stream->Expect(v1::ActorMessage::kPrepared);
}

TEST_F(ActorClientTest, WeightsComeFromTheActorThatTheRankNames) {
  FakePolicyService peer(5);
  peer.Put(1, "first weights");
  const auto server = RpcServer::Start("127.0.0.1:0", {&peer}).value();
  Start();
  const auto stream = AttachPrepared(1);
  stream->Send(Transfer(1, server->address()));
  EXPECT_FALSE(stream->Expect(v1::ActorMessage::kVerified).verified().peer_failed());
  EXPECT_THAT(policies_.offsets(), IsEmpty());
  EXPECT_THAT(peer.offsets(), ElementsAre(0));
}

TEST_F(ActorClientTest, WhatAnotherActorDoesNotDeliverComesFromTheRank) {
  FakePolicyService forger(5);
  forger.Put(1, "other weights");  // of the same length
  const auto server = RpcServer::Start("127.0.0.1:0", {&forger}).value();
  std::string nobody;
  { nobody = RpcServer::Start("127.0.0.1:0", {}).value()->address(); }
  Start();
  const auto stream = AttachPrepared(1);
  uint64_t version = 1;
  for (const std::string& source : {server->address(), nobody, std::string("not an address")}) {
    stream->Send(Transfer(version, source));
    const v1::Verified verified = stream->Expect(v1::ActorMessage::kVerified).verified();
    EXPECT_TRUE(verified.peer_failed()) << source;
    EXPECT_EQ(policies_.offsets().size(), version);
    ++version;
    policies_.Put(version, absl::StrCat("weights, more ", version));
    stream->Send(StagedOffer(version));
    stream->Expect(v1::ActorMessage::kPrepared);
  }
  EXPECT_THAT(metrics_.Text(), HasSubstr("sluice_peer_fallbacks_total 3"));
}

TEST_F(ActorClientTest, WhatIsCommittedIsServedToOthersUntilItIsReplaced) {
  PeerPolicies peers({});
  const auto server = RpcServer::Start("127.0.0.1:0", {&peers}).value();
  options_.peers = &peers;
  options_.peer_address = server->address();
  Start();
  const auto stream = rank_.NextStream();
  EXPECT_EQ(stream->Expect(v1::ActorMessage::kHello).hello().peer_address(), server->address());
  stream->Send(Welcome());
  PolicyFetcher fetcher({.now = MonotonicClock(), .wait = [](absl::Duration) { return false; }});
  const auto fetch = [&](uint64_t version) {
    const v1::PolicyOffer offer = policies_.Offer("job-1", version);
    std::string place(offer.payload_bytes(), '?');
    const absl::Status status = fetcher.FetchPolicy(MakeChannel(server->address()), offer,
                                                    absl::MakeSpan(place.data(), place.size()), [] { return true; });
    return status.ok() ? place : std::string(absl::StatusCodeToString(status.code()));
  };
  for (const uint64_t version : {1, 2}) {
    stream->Send(StagedOffer(version));
    stream->Expect(v1::ActorMessage::kPrepared);
    stream->Send(Transfer(version));
    stream->Expect(v1::ActorMessage::kVerified);
    EXPECT_EQ(fetch(version), "NOT_FOUND");  // not what it does not sample with
    stream->Send(Commit(version));
    stream->Expect(v1::ActorMessage::kReady);
    if (version == 1) stream->Expect(v1::ActorMessage::kCredit);
    EXPECT_EQ(fetch(version), version == 1 ? "first weights" : "second weights");
  }
  EXPECT_EQ(fetch(1), "NOT_FOUND");
}

// It used to try, and to say so, at each of the rank's questions: every five seconds for as long as the job ran.
TEST_F(ActorClientTest, AJobThatItCannotWorkOnIsLeftAloneForLongerAndLonger) {
  const auto seconds = std::make_shared<std::atomic<int64_t>>(0);
  const auto reads = std::make_shared<BoundedQueue<int64_t>>(10'000);
  options_.now = [seconds, reads] {
    reads->TryPush(*seconds);
    return absl::FromUnixSeconds(*seconds);
  };
  loader_.SetUnfit(true);
  ::testing::internal::CaptureStderr();
  Start();
  const auto stream = rank_.NextStream();
  stream->Expect(v1::ActorMessage::kHello);
  stream->Send(Welcome());
  ASSERT_TRUE(loader_.AwaitTry());
  // Asks in vain. One question is done with when the actor looks at its clock for the next one.
  const auto ask_twice = [&] {
    while (reads->PopFor(absl::ZeroDuration()).has_value()) {
    }
    for (int i = 0; i < 2; ++i) {
      stream->Send(StagedOffer(1));
      EXPECT_TRUE(reads->PopFor(kGenerous).has_value());
    }
    EXPECT_EQ(loader_.untold_tries(), 0u);
  };
  for (const int wait : {10, 20, 40, 80, 160, 300, 300}) {
    ask_twice();
    *seconds += wait;
    stream->Send(StagedOffer(1));
    ASSERT_TRUE(loader_.AwaitTry());
  }
  ask_twice();
  loader_.SetUnfit(false);
  *seconds += 300;
  stream->Send(StagedOffer(1));
  EXPECT_EQ(stream->Expect(v1::ActorMessage::kPrepared).prepared().policy_version(), 1u);
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(loader_.untold_tries(), 0u);
  int lines = 0;
  for (size_t at = 0; (at = said.find("this actor cannot work on the job", at)) != std::string::npos; ++at) ++lines;
  EXPECT_EQ(lines, 4) << "tries 1, 2, 4 and 8: " << said;
  EXPECT_THAT(said, HasSubstr("error=no layer of this model is known here tries=8 next_try_in_s="));
}

TEST_F(ActorClientTest, WhatItSaysAboutAJobTravelsWithItsBeats) {
  options_.wall = [] { return absl::FromUnixMillis(1'500); };
  Start();
  const auto stream = Attach();
  const v1::ActorLine first = stream->ExpectLine();
  EXPECT_EQ(first.job_id(), "job-1");
  EXPECT_EQ(first.level(), "info");
  EXPECT_EQ(first.text(), "working for a job: epoch=4");
  EXPECT_EQ(first.time().seconds(), 1);
  EXPECT_EQ(first.time().nanos(), 500'000'000);

  // Leases without scores: the first, then at doublings; once more when all have them again.
  for (uint64_t id = 1; id <= 3; ++id) stream->Send(Lease(id, /*seed=*/444));
  stream->Send(Lease(4, /*seed=*/555));
  const std::string error = ", error=the ranker failed: no GPU is left";
  for (const std::string& text : {"groups of a lease came back without scores: groups=2, of=2" + error + ", leases=1",
                                  "groups of a lease came back without scores: groups=2, of=2" + error + ", leases=2",
                                  std::string("scores are there again: leases_without=3")}) {
    const v1::ActorLine line = stream->ExpectLine();
    EXPECT_EQ(line.text(), text);
    EXPECT_EQ(line.level(), text[0] == 'g' ? "warning" : "info");
  }
  stream->Send(Lease(5, /*seed=*/666));
  EXPECT_EQ(stream->ExpectLine().text(), "a lease failed: lease=5, error=the model caught fire");
}

TEST_F(ActorClientTest, NewWeightsComeWhileABlockIsSampled) {
  Start();
  const auto stream = Attach();
  stream->Send(Lease(1, /*seed=*/999));
  ASSERT_TRUE(started_.WaitFor(kGenerous));
  stream->Send(Offer(2));
  EXPECT_EQ(stream->Expect(v1::ActorMessage::kReady).ready().policy_version(), 2u);  // the block is still in work
  EXPECT_EQ(stream->ExpectHeartbeat().open_groups(), 2u);
  release_.Notify();
  stream->Expect(v1::ActorMessage::kResult);
}

TEST_F(ActorClientTest, AFailedBlockIsGivenBackPromptByPrompt) {
  Start();
  const auto stream = Attach();
  stream->Send(Lease(3, /*seed=*/666));
  for (uint64_t ordinal : {30u, 31u}) {
    const v1::Abandoned abandoned = stream->Expect(v1::ActorMessage::kResult).result().abandoned();
    EXPECT_EQ(abandoned.ordinal(), ordinal);
    EXPECT_THAT(abandoned.reason(), HasSubstr("caught fire"));
    EXPECT_FALSE(abandoned.bad_data());
  }
  stream->Expect(v1::ActorMessage::kCredit);
}

TEST_F(ActorClientTest, ComesBackWhenTheRankGoesAwayAndKeepsItsPolicy) {
  Start();
  Attach()->End(absl::UnavailableError("the rank drains"));
  const auto again = rank_.NextStream();
  again->Expect(v1::ActorMessage::kHello);
  again->Send(Welcome());
  again->Send(Offer(1));
  EXPECT_EQ(again->Expect(v1::ActorMessage::kReady).ready().policy_version(), 1u);
  again->Expect(v1::ActorMessage::kCredit);
  EXPECT_THAT(loader_.notes(), ElementsAre("job tiny with 2 items", "weights 1 first weights"));  // nothing twice
}

TEST_F(ActorClientTest, ARankThatIsBehindGetsTheVersionItAsksFor) {
  Start();
  const auto stream = Attach();
  stream->Send(Offer(2));
  stream->Expect(v1::ActorMessage::kReady);
  stream->End(absl::AbortedError("a new epoch"));
  Attach();
  EXPECT_THAT(loader_.notes(),
              ElementsAre("job tiny with 2 items", "weights 1 first weights", "weights 2 second weights",
                          "job tiny with 2 items", "weights 1 first weights"));
}

TEST_F(ActorClientTest, JobsFollowEachOther) {
  Start();
  const auto stream = Attach();
  v1::RankMessage ended;
  ended.mutable_job_ended()->set_job_id("job-1");
  stream->Send(ended);
  stream->Send(Lease(5));  // void: its job is over
  stream->Send(Welcome());
  stream->Send(Offer(2));
  EXPECT_EQ(stream->Expect(v1::ActorMessage::kReady).ready().policy_version(), 2u);
  stream->Expect(v1::ActorMessage::kCredit);
  EXPECT_EQ(executions_, 0);
  EXPECT_EQ(policies_.catalog_fetches(), 1);  // the same catalog
}

TEST_F(ActorClientTest, DrainFinishesTheLeaseInHandAndGivesTheOthersBack) {
  Start();
  const auto stream = Attach();
  stream->Send(Lease(1, /*seed=*/999));
  ASSERT_TRUE(started_.WaitFor(kGenerous));
  stream->Send(Lease(2));
  stream->Send(Offer(2));
  stream->Expect(v1::ActorMessage::kReady);  // messages are received in order, so the lease is there
  client_->Drain("SIGTERM");
  EXPECT_EQ(stream->Expect(v1::ActorMessage::kDraining).draining().reason(), "SIGTERM");
  release_.Notify();
  int finished = 0;
  int returned = 0;
  while (std::optional<v1::ActorMessage> message = stream->Next()) {
    finished += message->result().has_group() ? 1 : 0;
    returned += message->result().has_abandoned() ? 1 : 0;
    EXPECT_FALSE(message->has_credit());
  }
  EXPECT_EQ(finished, 2);
  EXPECT_EQ(returned, 2);
  EXPECT_EQ(executions_, 1);
  EXPECT_TRUE(Finished().ok()) << result_;
}

TEST_F(ActorClientTest, DrainDoesNotWaitForEverForALease) {
  options_.drain_timeout = absl::ZeroDuration();
  Start();
  const auto stream = Attach();
  stream->Send(Lease(1, /*seed=*/999));
  ASSERT_TRUE(started_.WaitFor(kGenerous));
  client_->Drain("SIGTERM");
  stream->Expect(v1::ActorMessage::kDraining);
  EXPECT_FALSE(stream->Next().has_value());  // the stream ends, which gives the lease back
  EXPECT_FALSE(client_->WaitUnlessGivenUp(absl::ZeroDuration()));
  release_.Notify();
  EXPECT_TRUE(Finished().ok()) << result_;
}

TEST_F(ActorClientTest, DrainWithoutARankEndsAtOnce) {
  options_.learner.clear();
  options_.coordinator = server_->address();  // which knows no rank
  options_.reconnect.initial_backoff = absl::Hours(1);
  options_.reconnect.max_backoff = absl::Hours(1);
  Start();
  client_->Drain("SIGTERM");
  EXPECT_TRUE(Finished().ok()) << result_;
}

TEST_F(ActorClientTest, TheCoordinatorSaysWhereToGoAndWhatFailedIsAvoided) {
  std::string nobody;
  {
    auto gone = RpcServer::Start("127.0.0.1:0", {});
    ASSERT_TRUE(gone.ok());
    nobody = (*gone)->address();
  }
  coordinator_.Answer({nobody, server_->address()});
  options_.learner.clear();
  options_.coordinator = server_->address();
  Start();
  Attach();
  EXPECT_THAT(coordinator_.avoided(), ElementsAre(nobody));
}

TEST_F(ActorClientTest, ARefusedProtocolIsFinal) {
  Start();
  const auto stream = rank_.NextStream();
  stream->Expect(v1::ActorMessage::kHello);
  stream->End(absl::FailedPreconditionError("this rank speaks protocol 2"));
  const absl::Status status = Finished();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("protocol 2"));
}

TEST_F(ActorClientTest, AJobThatAsksForScoresNeedsARewardServer) {
  Start();
  const auto stream = rank_.NextStream();
  stream->Expect(v1::ActorMessage::kHello);
  stream->Send(Welcome(/*scored=*/true));
  stream->Send(Offer(1));
  stream->Send(Welcome());  // another job, which does not
  stream->Send(Offer(2));
  EXPECT_EQ(stream->Expect(v1::ActorMessage::kReady).ready().policy_version(), 2u);
}

}  // namespace
}  // namespace sluice::actor
