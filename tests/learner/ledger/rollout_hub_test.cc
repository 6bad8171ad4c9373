#include "learner/ledger/rollout_hub.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/random/random.h"
#include "common/sync/thread.h"
#include "common/time/clock.h"

namespace sluice::learner {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// Useful for: an actor's side of the stream that remembers what came.
class RecordingSink : public ActorSink {
 public:
  bool Send(const RankMessage& message) override {
    MutexLock lock(&mutex_);
    if (deaf_) return false;
    messages_.push_back(message);
    return true;
  }
  void Close(const absl::Status& status) override {
    MutexLock lock(&mutex_);
    if (!closed_.has_value()) closed_ = status;
  }

  void MakeDeaf() {
    MutexLock lock(&mutex_);
    deaf_ = true;
  }
  // Everything of one kind since the last call.
  template <typename T>
  std::vector<T> Take() {
    MutexLock lock(&mutex_);
    std::vector<T> taken;
    std::vector<RankMessage> rest;
    for (RankMessage& message : messages_) {
      if (auto* wanted = std::get_if<T>(&message)) {
        taken.push_back(std::move(*wanted));
      } else {
        rest.push_back(std::move(message));
      }
    }
    messages_ = std::move(rest);
    return taken;
  }
  std::optional<absl::Status> closed() const {
    MutexLock lock(&mutex_);
    return closed_;
  }

 private:
  mutable Mutex mutex_;
  std::vector<RankMessage> messages_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Status> closed_ ABSL_GUARDED_BY(mutex_);
  bool deaf_ ABSL_GUARDED_BY(mutex_) = false;
};

std::vector<Prompt> Prompts(uint64_t first, uint64_t count) {
  std::vector<Prompt> prompts(count);
  for (uint64_t i = 0; i < count; ++i) prompts[i].ordinal = first + i;
  return prompts;
}

HubJob Job(int staleness) {
  HubJob job;
  job.job_id = "job-1";
  job.epoch = 7;
  job.seed = 11;
  job.catalog_version = "c1";
  job.levels = 1;
  job.groups_per_step = 4;
  job.options.staleness = staleness;
  job.options.group_size = 2;
  job.options.lease_groups = 2;
  job.options.lease_deadline_s = 30;
  job.options.max_attempts = 2;
  job.options.objective = ObjectiveKind::kNllOnly;
  return job;
}

std::shared_ptr<const PolicySnapshot> Version(uint64_t version) {
  auto snapshot = std::make_shared<PolicySnapshot>();
  snapshot->version = version;
  snapshot->payload = "weights";
  snapshot->checksum = "sum";
  return snapshot;
}

ActorResult GroupOf(const LeaseMessage& lease, size_t i, uint64_t version) {
  ScoredGroup group;
  group.ordinal = lease.prompts[i].ordinal;
  group.attempt = lease.prompts[i].attempt;
  group.lease_id = lease.lease_id;
  group.behavior_version = version;
  group.catalog_version = "c1";
  group.completions = {Completion{{3}, 0, {-1.f}, {-1.f}}, Completion{{4}, 1, {-2.f}, {-2.f}}};
  return ActorResult{lease.job_id, lease.epoch, std::move(group)};
}

std::vector<Verdict> Trained(uint64_t first, uint64_t count) {
  std::vector<Verdict> verdicts;
  for (uint64_t i = 0; i < count; ++i) verdicts.push_back({first + i, TerminalState::kTrained, "open"});
  return verdicts;
}

class RolloutHubTest : public testing::Test {
 protected:
  RolloutHubTest() : hub_(RolloutHub::Options{[this] { return Now(); }, &metrics_, nullptr, absl::Seconds(100)}) {}

  absl::Time Now() const { return absl::UnixEpoch() + absl::Milliseconds(now_ms_.load()); }
  void Advance(absl::Duration by) { now_ms_ += absl::ToInt64Milliseconds(by); }

  // Attached, with a verified version and credit.
  RolloutHub::ActorHandle Join(const std::string& id, std::shared_ptr<RecordingSink> sink, uint64_t version,
                               uint32_t credit) {
    const RolloutHub::ActorHandle handle = hub_.Attach(id, std::move(sink)).value();
    hub_.OnReady(handle, "job-1", version);
    hub_.OnCredit(handle, credit);
    return handle;
  }

  AckMessage Deliver(RolloutHub::ActorHandle handle, RecordingSink* sink, ActorResult result) {
    hub_.OnResult(handle, std::move(result));
    const std::vector<AckMessage> acks = sink->Take<AckMessage>();
    EXPECT_EQ(acks.size(), 1u);
    return acks.empty() ? AckMessage() : acks.back();
  }

  Metrics metrics_;
  std::atomic<int64_t> now_ms_{0};
  RolloutHub hub_;
  std::shared_ptr<RecordingSink> sink_ = std::make_shared<RecordingSink>();
};

TEST_F(RolloutHubTest, AnActorHearsOfTheJobAndItsWeightsThenGetsWork) {
  const auto handle = hub_.Attach("a", sink_).value();
  EXPECT_TRUE(sink_->Take<WelcomeMessage>().empty());
  ASSERT_TRUE(hub_.StartJob(Job(2)).ok());
  EXPECT_EQ(sink_->Take<WelcomeMessage>().at(0).job->job_id, "job-1");
  hub_.Publish(Version(5));
  EXPECT_EQ(sink_->Take<OfferMessage>().at(0).policy_version, 5u);
  ASSERT_TRUE(hub_.Issue(0, Prompts(0, 4)).ok());
  hub_.OnCredit(handle, 1);
  EXPECT_TRUE(sink_->Take<LeaseMessage>().empty());  // no lease before a verified version
  hub_.OnReady(handle, "another-job", 5);
  hub_.OnReady(handle, "job-1", 4);  // of an abandoned timeline
  hub_.OnReady(handle, "job-1", 6);  // never published
  EXPECT_TRUE(sink_->Take<LeaseMessage>().empty());
  hub_.OnReady(handle, "job-1", 5);
  const auto leases = sink_->Take<LeaseMessage>();
  ASSERT_EQ(leases.size(), 1u);  // one credit, one lease
  EXPECT_EQ(leases[0].prompts.size(), 2u);
  EXPECT_EQ(leases[0].policy_version, 5u);
  EXPECT_FALSE(leases[0].exact_version);
  EXPECT_EQ(leases[0].deadline, absl::Seconds(30));
  EXPECT_EQ(leases[0].epoch, 7u);
}

TEST_F(RolloutHubTest, AWholeStepComesBack) {
  ASSERT_TRUE(hub_.StartJob(Job(0)).ok());
  hub_.Publish(Version(1));
  ASSERT_TRUE(hub_.Issue(0, Prompts(0, 4)).ok());
  const auto handle = Join("a", sink_, 1, 8);
  const auto leases = sink_->Take<LeaseMessage>();
  ASSERT_EQ(leases.size(), 2u);
  EXPECT_TRUE(leases[0].exact_version);
  for (const LeaseMessage& lease : leases) {
    for (size_t i = 0; i < 2; ++i) EXPECT_TRUE(Deliver(handle, sink_.get(), GroupOf(lease, i, 1)).accepted);
  }
  const auto groups = hub_.Wait(0, absl::Seconds(1));
  ASSERT_TRUE(groups.ok()) << groups.status();
  EXPECT_EQ(groups->size(), 4u);
  ASSERT_TRUE(hub_.Commit(0, Trained(0, 4)).ok());
  EXPECT_EQ(hub_.Balance().trained, 4u);
  EXPECT_THAT(metrics_.Text(), HasSubstr("sluice_groups_total{state=\"trained\"} 4"));
  EXPECT_THAT(metrics_.Text(), HasSubstr("sluice_ledger_imbalance 0"));
}

TEST_F(RolloutHubTest, NoLeaseBeforeAStagedActorHasProvenAndSwappedInAVersion) {
  ASSERT_TRUE(hub_.StartJob(Job(2)).ok());
  const auto handle = hub_.Attach("a", sink_, true, {.staged = true}).value();
  hub_.OnCredit(handle, 8);
  hub_.Publish(Version(5));
  ASSERT_TRUE(hub_.Issue(0, Prompts(0, 4)).ok());
  const OfferMessage offer = sink_->Take<OfferMessage>().at(0);
  EXPECT_TRUE(offer.staged);
  EXPECT_NE(offer.chunks, nullptr);
  EXPECT_TRUE(sink_->Take<TransferMessage>().empty());
  hub_.OnPrepared(handle, "another job", 5);
  EXPECT_TRUE(sink_->Take<TransferMessage>().empty());
  hub_.OnPrepared(handle, "job-1", 5);
  EXPECT_EQ(sink_->Take<TransferMessage>().at(0).policy_version, 5u);
  hub_.OnReady(handle, "job-1", 5);
  hub_.OnVerified(handle, "job-1", 5, "another sum", false);
  EXPECT_TRUE(sink_->Take<CommitMessage>().empty());
  EXPECT_THAT(metrics_.Text(), HasSubstr("sluice_publish_mismatches_total 1"));
  EXPECT_THAT(metrics_.Text(), HasSubstr("sluice_actor_weight_states{state=\"pending_weights\"} 1"));
  Advance(absl::Seconds(5));
  hub_.Tick();
  hub_.OnPrepared(handle, "job-1", 5);
  hub_.OnVerified(handle, "job-1", 5, "sum", false);
  EXPECT_EQ(sink_->Take<CommitMessage>().at(0).policy_version, 5u);
  EXPECT_TRUE(sink_->Take<LeaseMessage>().empty());
  hub_.OnReady(handle, "job-1", 5);
  EXPECT_EQ(sink_->Take<LeaseMessage>().size(), 2u);
  EXPECT_THAT(metrics_.Text(), HasSubstr("sluice_actor_weight_states{state=\"ready\"} 1"));
  EXPECT_THAT(metrics_.Text(), HasSubstr("sluice_publish_transfers_total{source=\"rank\"} 2"));
}

TEST_F(RolloutHubTest, AStepWaitsForTheQuorumAndOldWeightsServeMeanwhile) {
  RolloutHub hub({.now = [this] { return Now(); }, .publication = {.min_actors = 2}});
  ASSERT_TRUE(hub.StartJob(Job(2)).ok());
  hub.Publish(Version(1));
  const auto second_sink = std::make_shared<RecordingSink>();
  const auto first = hub.Attach("a", sink_).value();
  const auto second = hub.Attach("b", second_sink).value();
  hub.OnCredit(first, 8);
  hub.OnReady(first, "job-1", 1);
  ASSERT_TRUE(hub.Issue(0, Prompts(0, 4)).ok());
  for (const LeaseMessage& lease : sink_->Take<LeaseMessage>()) {
    for (size_t i = 0; i < 2; ++i) hub.OnResult(first, GroupOf(lease, i, 1));
  }
  // All groups are there, and one actor holds the version.
  const absl::Status waits = hub.Wait(0, absl::ZeroDuration()).status();
  EXPECT_EQ(waits.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(waits.message()), HasSubstr("1 hold version 1, want 2 (--min-actors)"));
  hub.OnReady(second, "job-1", 1);
  ASSERT_TRUE(hub.Wait(0, absl::ZeroDuration()).ok());
  ASSERT_TRUE(hub.Commit(0, Trained(0, 4)).ok());
  // Work of the step that was issued before goes on under version 1 while 2 is on its way.
  ASSERT_TRUE(hub.Issue(1, Prompts(4, 4)).ok());
  hub.Publish(Version(2));
  EXPECT_EQ(sink_->Take<LeaseMessage>().size(), 2u);
  EXPECT_EQ(hub.Wait(1, absl::ZeroDuration()).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(RolloutHubTest, SynchronousLeasesWaitForExactlyTheLatestVersion) {
  ASSERT_TRUE(hub_.StartJob(Job(0)).ok());
  hub_.Publish(Version(1));
  const auto handle = Join("a", sink_, 1, 8);
  hub_.Publish(Version(2));
  ASSERT_TRUE(hub_.Issue(0, Prompts(0, 4)).ok());
  EXPECT_TRUE(sink_->Take<LeaseMessage>().empty());
  hub_.OnReady(handle, "job-1", 2);
  const auto leases = sink_->Take<LeaseMessage>();
  ASSERT_EQ(leases.size(), 2u);
  EXPECT_EQ(leases[0].policy_version, 2u);
  const AckMessage ack = Deliver(handle, sink_.get(), GroupOf(leases[0], 0, 1));
  EXPECT_FALSE(ack.accepted);
  EXPECT_THAT(ack.reason, HasSubstr("stale_version: want version 2, got 1"));
}

TEST_F(RolloutHubTest, AsynchronousActorsGoOnWithTheVersionOfTheIssue) {
  ASSERT_TRUE(hub_.StartJob(Job(2)).ok());
  hub_.Publish(Version(1));
  const auto handle = Join("a", sink_, 1, 1);
  ASSERT_TRUE(hub_.Issue(0, Prompts(0, 4)).ok());
  hub_.Publish(Version(2));
  ASSERT_TRUE(hub_.Issue(1, Prompts(4, 4)).ok());
  hub_.OnCredit(handle, 8);
  const auto leases = sink_->Take<LeaseMessage>();
  ASSERT_EQ(leases.size(), 2u);  // both of step 0; step 1 wants version 2
  EXPECT_TRUE(Deliver(handle, sink_.get(), GroupOf(leases[0], 0, 1)).accepted);
  EXPECT_TRUE(Deliver(handle, sink_.get(), GroupOf(leases[0], 1, 2)).accepted);  // a later one will do
  EXPECT_THAT(Deliver(handle, sink_.get(), GroupOf(leases[1], 0, 3)).reason, HasSubstr("stale_version"));
  hub_.OnReady(handle, "job-1", 2);
  EXPECT_EQ(sink_->Take<LeaseMessage>().size(), 2u);
}

TEST_F(RolloutHubTest, SeedsRepeatInSynchronousModeAndDifferByAttemptOtherwise) {
  for (int staleness : {0, 2}) {
    ASSERT_TRUE(hub_.StartJob(Job(staleness)).ok());
    hub_.Publish(Version(1));
    ASSERT_TRUE(hub_.Issue(0, Prompts(0, 4)).ok());
    Join("a", sink_, 1, 2);
    const auto first = sink_->Take<LeaseMessage>();
    ASSERT_EQ(first.size(), 2u);
    EXPECT_NE(first[0].seed, first[1].seed);
    Advance(absl::Seconds(30));
    Join("b", sink_, 1, 2);
    const auto second = sink_->Take<LeaseMessage>();
    ASSERT_EQ(second.size(), 2u);
    EXPECT_EQ(second[0].prompts[0].attempt, 2u);
    EXPECT_EQ(first[0].seed == second[0].seed, staleness == 0);
    hub_.DisconnectActors(absl::UnavailableError("next"));
    hub_.EndJob();
  }
}

TEST_F(RolloutHubTest, RefusalsSayWhy) {
  ASSERT_TRUE(hub_.StartJob(Job(2)).ok());
  hub_.Publish(Version(1));
  ASSERT_TRUE(hub_.Issue(0, Prompts(0, 4)).ok());
  const auto handle = Join("a", sink_, 1, 1);
  const LeaseMessage lease = sink_->Take<LeaseMessage>().at(0);

  ActorResult result = GroupOf(lease, 0, 1);
  result.job_id = "job-0";
  EXPECT_EQ(Deliver(handle, sink_.get(), result).reason, "job");
  result = GroupOf(lease, 0, 1);
  result.epoch = 6;
  EXPECT_EQ(Deliver(handle, sink_.get(), result).reason, "epoch");
  result = GroupOf(lease, 0, 1);
  std::get<ScoredGroup>(result.outcome).ordinal = 99;
  EXPECT_EQ(Deliver(handle, sink_.get(), result).reason, "unknown");
  result = GroupOf(lease, 0, 1);
  std::get<ScoredGroup>(result.outcome).attempt = 2;
  EXPECT_EQ(Deliver(handle, sink_.get(), result).reason, "late");
  EXPECT_TRUE(Deliver(handle, sink_.get(), GroupOf(lease, 0, 1)).accepted);
  EXPECT_EQ(Deliver(handle, sink_.get(), GroupOf(lease, 0, 1)).reason, "duplicate");
  result = GroupOf(lease, 1, 1);
  std::get<ScoredGroup>(result.outcome).completions[0].log_probs_full.clear();
  EXPECT_THAT(Deliver(handle, sink_.get(), result).reason, HasSubstr("invalid: completions[0].log_probs_full"));
  EXPECT_THAT(metrics_.Text(), HasSubstr("sluice_duplicate_deliveries_total 1"));
  EXPECT_THAT(metrics_.Text(), HasSubstr("sluice_deliveries_total{outcome=\"invalid\"} 1"));

  // The broken one does not wait for the deadline.
  hub_.OnCredit(handle, 1);
  const LeaseMessage again = sink_->Take<LeaseMessage>().at(0);
  ASSERT_EQ(again.prompts.size(), 1u);
  EXPECT_EQ(again.prompts[0].ordinal, 1u);
  EXPECT_EQ(again.prompts[0].attempt, 2u);
}

TEST_F(RolloutHubTest, AnotherActorCannotAnswerALease) {
  ASSERT_TRUE(hub_.StartJob(Job(2)).ok());
  hub_.Publish(Version(1));
  ASSERT_TRUE(hub_.Issue(0, Prompts(0, 4)).ok());
  Join("a", sink_, 1, 1);
  const LeaseMessage lease = sink_->Take<LeaseMessage>().at(0);
  auto other = std::make_shared<RecordingSink>();
  const auto thief = hub_.Attach("b", other).value();
  EXPECT_EQ(Deliver(thief, other.get(), GroupOf(lease, 0, 1)).reason, "late");
}

TEST_F(RolloutHubTest, LeasesOfAnActorThatLeavesGoToTheNext) {
  ASSERT_TRUE(hub_.StartJob(Job(2)).ok());
  hub_.Publish(Version(1));
  ASSERT_TRUE(hub_.Issue(0, Prompts(0, 4)).ok());
  const auto leaver = Join("a", sink_, 1, 2);
  EXPECT_EQ(sink_->Take<LeaseMessage>().size(), 2u);
  auto other = std::make_shared<RecordingSink>();
  Join("b", other, 1, 2);
  EXPECT_TRUE(other->Take<LeaseMessage>().empty());
  hub_.Detach(leaver);
  EXPECT_EQ(other->Take<LeaseMessage>().size(), 2u);
  EXPECT_EQ(hub_.num_actors(), 1);
}

TEST_F(RolloutHubTest, AnActorThatComesBackReplacesItsOldStream) {
  ASSERT_TRUE(hub_.StartJob(Job(2)).ok());
  hub_.Publish(Version(1));
  ASSERT_TRUE(hub_.Issue(0, Prompts(0, 4)).ok());
  const auto old = Join("a", sink_, 1, 2);
  auto fresh = std::make_shared<RecordingSink>();
  Join("a", fresh, 1, 2);
  EXPECT_EQ(sink_->closed()->code(), absl::StatusCode::kAborted);
  EXPECT_EQ(fresh->Take<LeaseMessage>().size(), 2u);
  hub_.Detach(old);  // the old stream's end comes late and changes nothing
  EXPECT_EQ(hub_.num_actors(), 1);
}

TEST_F(RolloutHubTest, AnIdleActorIsReleasedBeforeABusyOne) {
  ASSERT_TRUE(hub_.StartJob(Job(2)).ok());
  hub_.Publish(Version(1));
  ASSERT_TRUE(hub_.Issue(0, Prompts(0, 4)).ok());
  EXPECT_EQ(hub_.blocks_for_actors(), 2);
  Join("a", sink_, 1, 1);
  EXPECT_EQ(hub_.blocks_for_actors(), 1);
  auto idle = std::make_shared<RecordingSink>();
  Join("b", idle, 1, 0);
  EXPECT_TRUE(hub_.ReleaseActor());
  EXPECT_EQ(idle->closed()->code(), absl::StatusCode::kResourceExhausted);
  EXPECT_FALSE(sink_->closed().has_value());
  // The busy one's lease comes back.
  EXPECT_TRUE(hub_.ReleaseActor());
  EXPECT_EQ(sink_->closed()->code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(hub_.blocks_for_actors(), 2);
  EXPECT_EQ(hub_.num_actors(), 0);
  EXPECT_FALSE(hub_.ReleaseActor());
}

TEST_F(RolloutHubTest, ADrainingActorGetsNothingMoreButMayFinish) {
  ASSERT_TRUE(hub_.StartJob(Job(2)).ok());
  hub_.Publish(Version(1));
  ASSERT_TRUE(hub_.Issue(0, Prompts(0, 4)).ok());
  const auto handle = Join("a", sink_, 1, 1);
  const LeaseMessage lease = sink_->Take<LeaseMessage>().at(0);
  hub_.OnDraining(handle);
  hub_.OnCredit(handle, 5);
  EXPECT_TRUE(sink_->Take<LeaseMessage>().empty());
  EXPECT_TRUE(Deliver(handle, sink_.get(), GroupOf(lease, 0, 1)).accepted);
  const AckMessage back =
      Deliver(handle, sink_.get(),
              ActorResult{"job-1", 7, AbandonedPrompt{lease.prompts[1].ordinal, 1, lease.lease_id, "draining", false}});
  EXPECT_TRUE(back.accepted);
}

TEST_F(RolloutHubTest, SilentActorsAreSentAway) {
  ASSERT_TRUE(hub_.StartJob(Job(2)).ok());
  const auto handle = hub_.Attach("a", sink_).value();
  Advance(absl::Seconds(99));
  hub_.OnHeartbeat(handle, 0, 0);
  Advance(absl::Seconds(99));
  hub_.Tick();
  EXPECT_EQ(hub_.num_actors(), 1);
  Advance(absl::Seconds(1));
  hub_.Tick();
  EXPECT_EQ(hub_.num_actors(), 0);
  EXPECT_EQ(sink_->closed()->code(), absl::StatusCode::kUnavailable);
}

TEST_F(RolloutHubTest, EachActorIsSentAwayWhenItsOwnSilenceIsTooLong) {
  const int kActors = 8;
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  std::vector<RolloutHub::ActorHandle> handles;
  std::vector<absl::Time> heard;
  Random random(3);
  for (int a = 0; a < kActors; ++a) {
    Advance(absl::Seconds(7));
    sinks.push_back(std::make_shared<RecordingSink>());
    handles.push_back(hub_.Attach("actor-" + std::to_string(a), sinks.back()).value());
    heard.push_back(Now());
  }
  // Second by second somebody beats, the first ones less and less; the hub only sees those beats.
  for (int second = 0; second < 600; ++second) {
    Advance(absl::Seconds(1));
    const size_t a = random.Below(kActors);
    const bool lives = Now() - heard[a] < absl::Seconds(100) && (a >= 4 || second < 100 * static_cast<int>(a));
    hub_.OnHeartbeat(handles[lives ? a : 7], 0, 0);
    heard[lives ? a : 7] = Now();
    for (size_t i = 0; i < sinks.size(); ++i) {
      ASSERT_EQ(sinks[i]->closed().has_value(), Now() - heard[i] >= absl::Seconds(100)) << "actor " << i;
    }
  }
  EXPECT_LT(hub_.num_actors(), 5);
  EXPECT_GT(hub_.num_actors(), 0);
}

TEST_F(RolloutHubTest, AnActorThatDoesNotReadIsSentAway) {
  ASSERT_TRUE(hub_.StartJob(Job(2)).ok());
  const auto handle = hub_.Attach("a", sink_).value();
  sink_->MakeDeaf();
  hub_.Publish(Version(1));
  EXPECT_EQ(sink_->closed()->code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(hub_.num_actors(), 0);
  hub_.OnReady(handle, "job-1", 1);
}

TEST_F(RolloutHubTest, WaitReportsThatNothingComes) {
  ASSERT_TRUE(hub_.StartJob(Job(2)).ok());
  ASSERT_TRUE(hub_.Issue(0, Prompts(0, 4)).ok());
  // Until Wait is done: a hundred seconds that all passed before it began once left it waiting for ever.
  std::atomic<bool> done{false};
  Thread clock = StartThread("clock", [this, &done] {
    while (!done) Advance(absl::Seconds(1));
  });
  const absl::Status status = hub_.Wait(0, absl::Seconds(60)).status();
  done = true;
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("0 actors attached"));
}

TEST_F(RolloutHubTest, StopWakesWait) {
  ASSERT_TRUE(hub_.StartJob(Job(2)).ok());
  ASSERT_TRUE(hub_.Issue(0, Prompts(0, 4)).ok());
  Thread stopper = StartThread("stopper", [this] { hub_.Stop(); });
  EXPECT_EQ(hub_.Wait(0, absl::Hours(1)).status().code(), absl::StatusCode::kCancelled);
}

TEST_F(RolloutHubTest, UnsampledOrdinalsComeBackWithTheReason) {
  ASSERT_TRUE(hub_.StartJob(Job(2)).ok());  // two attempts
  hub_.Publish(Version(1));
  ASSERT_TRUE(hub_.Issue(0, Prompts(0, 2)).ok());
  const auto handle = Join("a", sink_, 1, 4);
  Advance(absl::Seconds(30));
  hub_.OnHeartbeat(handle, 2, 1);
  Advance(absl::Seconds(30));
  const auto groups = hub_.Wait(0, absl::Hours(1));
  ASSERT_TRUE(groups.ok()) << groups.status();
  EXPECT_FALSE(groups->at(0).group.has_value());
  EXPECT_THAT(groups->at(0).error, HasSubstr("2 attempts"));
}

TEST_F(RolloutHubTest, JobsFollowEachOtherOverTheSameActors) {
  ASSERT_TRUE(hub_.StartJob(Job(2)).ok());
  EXPECT_EQ(hub_.StartJob(Job(2)).code(), absl::StatusCode::kFailedPrecondition);
  hub_.Publish(Version(9));
  ASSERT_TRUE(hub_.Issue(0, Prompts(0, 4)).ok());
  const auto handle = Join("a", sink_, 9, 1);
  const LeaseMessage old = sink_->Take<LeaseMessage>().at(0);
  hub_.EndJob();
  EXPECT_EQ(sink_->Take<JobEndedMessage>().at(0).job_id, "job-1");
  EXPECT_EQ(hub_.Balance().open, 4u);  // still readable

  HubJob next = Job(2);
  next.job_id = "job-2";
  sink_->Take<WelcomeMessage>();
  ASSERT_TRUE(hub_.StartJob(next).ok());
  EXPECT_EQ(sink_->Take<WelcomeMessage>().at(0).job->job_id, "job-2");
  hub_.Publish(Version(1));  // versions are a job's own
  ASSERT_TRUE(hub_.Issue(0, Prompts(0, 4)).ok());
  EXPECT_EQ(Deliver(handle, sink_.get(), GroupOf(old, 0, 9)).reason, "job");
  hub_.OnReady(handle, "job-2", 1);
  hub_.OnCredit(handle, 1);
  EXPECT_EQ(sink_->Take<LeaseMessage>().at(0).job_id, "job-2");
}

TEST_F(RolloutHubTest, ARestoredLedgerContinuesUnderAFreshVersion) {
  ASSERT_TRUE(hub_.StartJob(Job(2)).ok());
  hub_.Publish(Version(1));
  ASSERT_TRUE(hub_.Issue(0, Prompts(0, 4)).ok());
  const std::string snapshot = hub_.Snapshot();
  hub_.EndJob();
  HubJob resumed = Job(2);
  resumed.epoch = 8;
  ASSERT_TRUE(hub_.StartJob(resumed).ok());
  ASSERT_TRUE(hub_.Restore(snapshot).ok());
  hub_.Publish(Version(12));
  ASSERT_TRUE(hub_.Issue(0, Prompts(0, 4)).ok());
  const auto handle = Join("a", sink_, 12, 1);
  hub_.OnReady(handle, "job-1", 1);
  const auto leases = sink_->Take<LeaseMessage>();
  ASSERT_EQ(leases.size(), 1u);
  EXPECT_EQ(leases[0].policy_version, 12u);
  EXPECT_EQ(hub_.Balance().issued, 4u);
}

ActorResult BeamsOf(const LeaseMessage& lease, size_t i, uint64_t version) {
  DecodedPrompt decoded;
  decoded.ordinal = lease.prompts[i].ordinal;
  decoded.lease_id = lease.lease_id;
  decoded.behavior_version = version;
  decoded.constrained = {Completion{{static_cast<int32_t>(decoded.ordinal)}, 0, {-1.f}, {-1.f}}};
  return {lease.job_id, lease.epoch, decoded};
}

TEST_F(RolloutHubTest, AnEvaluationIsOpenedForThePublishedVersionAlone) {
  const DecodeCall call{.policy_version = 3, .constrained_beams = 2};
  EXPECT_EQ(hub_.OpenDecode(call).code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(hub_.StartJob(Job(2)).ok());
  EXPECT_EQ(hub_.OpenDecode(call).code(), absl::StatusCode::kFailedPrecondition) << "nothing is published";
  hub_.Publish(Version(4));
  EXPECT_THAT(hub_.OpenDecode(call).message(), HasSubstr("version 3, published is 4"));
  EXPECT_EQ(hub_.OpenDecode({.policy_version = 4}).code(), absl::StatusCode::kInvalidArgument) << "no beams";
  ASSERT_TRUE(hub_.OpenDecode({.policy_version = 4, .constrained_beams = 1}).ok());
  EXPECT_EQ(hub_.OpenDecode({.policy_version = 4, .constrained_beams = 1}).code(),
            absl::StatusCode::kFailedPrecondition);
  hub_.CloseDecode();
  EXPECT_TRUE(hub_.OpenDecode({.policy_version = 4, .constrained_beams = 1}).ok());
}

TEST_F(RolloutHubTest, BlocksToEvaluateGoToActorsThatHoldTheVersionAndTheRestToTheRank) {
  ASSERT_TRUE(hub_.StartJob(Job(2)).ok());
  hub_.Publish(Version(2));
  hub_.Publish(Version(3));
  const auto late = std::make_shared<RecordingSink>();
  Join("late", late, 2, 5);  // holds an older version
  const auto handle = Join("good", sink_, 3, 1);
  ASSERT_TRUE(hub_.Issue(0, Prompts(0, 4)).ok());
  EXPECT_EQ(sink_->Take<LeaseMessage>().size(), 1u) << "half of step 0; the other half waits behind the evaluation";
  ASSERT_TRUE(hub_.OpenDecode({.policy_version = 3, .constrained_beams = 2}).ok());
  hub_.AddBlock(0, Prompts(10, 2));
  hub_.AddBlock(1, Prompts(12, 2));
  hub_.OnCredit(handle, 1);
  const auto leases = sink_->Take<LeaseMessage>();
  ASSERT_EQ(leases.size(), 1u);
  EXPECT_EQ(leases[0].kind, LeaseKind::kDecode);
  EXPECT_TRUE(leases[0].exact_version);
  EXPECT_EQ(leases[0].policy_version, 3u);
  EXPECT_EQ(leases[0].constrained_beams, 2);
  EXPECT_TRUE(late->Take<LeaseMessage>().empty());
  EXPECT_EQ(hub_.TakeForRank(), 1u);
  EXPECT_EQ(hub_.TakeForRank(), std::nullopt);
  EXPECT_TRUE(hub_.TakeDecoded(absl::ZeroDuration())->empty());
  for (size_t i : {1, 0}) hub_.OnResult(handle, BeamsOf(leases[0], i, 3));
  const auto decoded = hub_.TakeDecoded(absl::Hours(1));
  ASSERT_EQ(decoded->size(), 1u);
  EXPECT_EQ(decoded->at(0).prompts.at(1).constrained.at(0).tokens.at(0), 11);
  EXPECT_EQ(hub_.Balance().open, 4u) << "the books of the training are not touched";
}

TEST_F(RolloutHubTest, ABlockWithBeamsOfAnotherVersionOrWithBadOnesComesBackWhole) {
  ASSERT_TRUE(hub_.StartJob(Job(2)).ok());
  hub_.Publish(Version(3));
  ASSERT_TRUE(hub_.OpenDecode({.policy_version = 3, .constrained_beams = 2}).ok());
  const auto handle = Join("a", sink_, 3, 10);
  for (uint64_t block = 0; block < 3; ++block) hub_.AddBlock(block, Prompts(10 * block, 2));
  const auto leases = sink_->Take<LeaseMessage>();
  ASSERT_EQ(leases.size(), 3u);
  const auto ack = [this] { return sink_->Take<AckMessage>().at(0); };

  hub_.OnResult(handle, BeamsOf(leases[0], 0, 3));
  EXPECT_TRUE(ack().accepted);
  hub_.Publish(Version(4));  // what a late answer would be of
  hub_.OnResult(handle, BeamsOf(leases[0], 1, 4));
  EXPECT_THAT(ack().reason, HasSubstr("stale_version: want version 3, got 4"));
  EXPECT_EQ(hub_.TakeForRank(), 0u);

  ActorResult bad = BeamsOf(leases[1], 0, 3);
  std::get<DecodedPrompt>(bad.outcome).constrained.resize(3);
  hub_.OnResult(handle, bad);
  EXPECT_THAT(ack().reason, HasSubstr("invalid: constrained: want 2 beams, got 3"));
  EXPECT_EQ(hub_.TakeForRank(), 1u);
  hub_.OnResult(handle, BeamsOf(leases[1], 1, 3));
  EXPECT_EQ(ack().reason, "late");

  hub_.OnResult(handle, {"job-1", 7, AbandonedPrompt{20, 1, leases[2].lease_id, "no memory", false}});
  EXPECT_EQ(ack().reason, "abandoned");
  EXPECT_EQ(hub_.TakeForRank(), 2u);
  EXPECT_TRUE(hub_.TakeDecoded(absl::ZeroDuration())->empty());
  EXPECT_TRUE(sink_->Take<LeaseMessage>().empty());
}

TEST_F(RolloutHubTest, TheRankGetsWhatAnActorThatLeftOrIsTooSlowHadInHand) {
  ASSERT_TRUE(hub_.StartJob(Job(2)).ok());  // leases last 30 s
  hub_.Publish(Version(3));
  ASSERT_TRUE(hub_.OpenDecode({.policy_version = 3, .constrained_beams = 2}).ok());
  const auto leaves = Join("leaves", sink_, 3, 1);
  hub_.AddBlock(0, Prompts(0, 2));
  const auto slow = std::make_shared<RecordingSink>();
  Join("slow", slow, 3, 1);
  hub_.AddBlock(1, Prompts(2, 2));
  EXPECT_EQ(hub_.TakeForRank(), std::nullopt);
  hub_.Detach(leaves);
  EXPECT_EQ(hub_.TakeForRank(), 0u);
  Thread time = StartThread("time", [this] { Advance(absl::Seconds(30)); });
  EXPECT_TRUE(hub_.TakeDecoded(absl::Hours(1))->empty()) << "returns for the block, not for beams";
  time.Join();
  EXPECT_EQ(hub_.TakeForRank(), 1u);
  hub_.Stop();
  EXPECT_EQ(hub_.TakeDecoded(absl::Hours(1)).status().code(), absl::StatusCode::kCancelled);
}

// The hub under a seeded storm of actors that come, go, lose, delay, double and damage results.
// Useful for: remembering what a sender was told.
class RecordingSender : public WeightSender {
 public:
  void Send(BroadcastOrder order) override {
    told_.push_back(absl::StrCat("send ", order.version, " of ", order.job_id, " in ", order.place.epoch, " of ",
                                 order.place.world_size));
  }
  void Abort(uint64_t epoch) override { told_.push_back(absl::StrCat("abort ", epoch)); }
  std::vector<std::string> Told() { return std::exchange(told_, {}); }

 private:
  std::vector<std::string> told_;
};

TEST(RolloutHubGroupTest, MembersAndTheSenderAreToldOfARoundAndOfItsEnd) {
  Metrics metrics;
  RecordingSender sender;
  RolloutHub hub({[] { return absl::UnixEpoch(); }, &metrics, nullptr, absl::Seconds(100),
                  PublicationOptions{.group = "gloo", .group_chunk_bytes = 8}, &sender});
  ASSERT_TRUE(hub.StartJob(Job(/*staleness=*/2)).ok());
  const auto sink = std::make_shared<RecordingSink>();
  const RolloutHub::ActorHandle actor = hub.Attach("a", sink, true, {.staged = true, .group = "gloo"}).value();
  hub.Publish(Version(1));
  EXPECT_EQ(sink->Take<OfferMessage>().size(), 1u);
  hub.OnPrepared(actor, "job-1", 1);
  EXPECT_THAT(sender.Told(), ElementsAre("send 1 of job-1 in 1 of 2"));
  const std::vector<BroadcastMessage> told = sink->Take<BroadcastMessage>();
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0].policy_version, 1u);
  EXPECT_EQ(told[0].place.epoch, 1u);
  EXPECT_EQ(told[0].place.rank, 1);
  EXPECT_EQ(told[0].place.world_size, 2);
  EXPECT_EQ(told[0].chunk_bytes, 8u);
  EXPECT_EQ(told[0].timeout, absl::Seconds(20));
  hub.OnBroadcast(1, 1, true);
  hub.OnVerified(actor, "job-1", 1, "sum", false);
  EXPECT_EQ(sink->Take<CommitMessage>().size(), 1u);
  hub.OnReady(actor, "job-1", 1);
  EXPECT_THAT(metrics.Text(), HasSubstr("sluice_publish_transfers_total{source=\"group\"} 1"));
  EXPECT_THAT(metrics.Text(), HasSubstr("sluice_publish_groups_total 1"));

  hub.Publish(Version(2));
  hub.OnPrepared(actor, "job-1", 2);
  EXPECT_THAT(sender.Told(), ElementsAre("send 2 of job-1 in 1 of 2"));
  hub.OnBroadcast(1, 2, false);
  EXPECT_THAT(sender.Told(), ElementsAre("abort 1"));
  EXPECT_EQ(sink->Take<TransferMessage>().size(), 1u);
  EXPECT_THAT(metrics.Text(), HasSubstr("sluice_publish_fallbacks_total{reason=\"group_failed\"} 1"));
}

TEST(RolloutHubGroupTest, TheEndOfAJobEndsItsGroup) {
  RecordingSender sender;
  RolloutHub hub({[] { return absl::UnixEpoch(); }, nullptr, nullptr, absl::Seconds(100),
                  PublicationOptions{.group = "gloo"}, &sender});
  ASSERT_TRUE(hub.StartJob(Job(/*staleness=*/2)).ok());
  const auto sink = std::make_shared<RecordingSink>();
  const RolloutHub::ActorHandle actor = hub.Attach("a", sink, true, {.staged = true, .group = "gloo"}).value();
  hub.Publish(Version(1));
  hub.OnPrepared(actor, "job-1", 1);
  sender.Told();
  hub.EndJob();
  EXPECT_THAT(sender.Told(), ElementsAre("abort 1"));
  hub.OnBroadcast(1, 1, false);  // of the past
  ASSERT_TRUE(hub.StartJob(Job(/*staleness=*/2)).ok());
  hub.Publish(Version(1));
  hub.OnPrepared(actor, "job-1", 1);
  EXPECT_THAT(sender.Told(), ElementsAre("send 1 of job-1 in 2 of 2"));
}

// Useful for: a sender that answers at once, as it likes, and holds every order against those before it.
class AnsweringSender : public WeightSender {
 public:
  void Send(BroadcastOrder order) override {
    uint64_t sent = 0;
    for (int i = 0; i < 20; ++i) std::this_thread::yield();  // so that whoever could overtake this order does
    {
      MutexLock lock(&mutex_);
      EXPECT_GT(order.place.epoch, aborted_) << "an order of a group that was aborted before";
      sent = ++sent_;
    }
    hub_->OnBroadcast(order.place.epoch, order.version, sent % 3 != 0);
  }
  void Abort(uint64_t epoch) override {
    MutexLock lock(&mutex_);
    EXPECT_GT(epoch, aborted_);
    aborted_ = epoch;
  }
  void Open(RolloutHub* hub) { hub_ = hub; }
  uint64_t sent() const {
    MutexLock lock(&mutex_);
    return sent_;
  }

 private:
  RolloutHub* hub_ = nullptr;
  mutable Mutex mutex_;
  uint64_t sent_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t aborted_ ABSL_GUARDED_BY(mutex_) = 0;
};

TEST(RolloutHubGroupTest, OrdersToTheSenderKeepTheirOrderWhoeverDeliversThem) {
  constexpr uint64_t kRounds = 200;
  AnsweringSender sender;
  PublicationOptions publication;
  publication.group = "gloo";
  publication.group_failures = 1'000'000;
  RolloutHub hub({MonotonicClock(), nullptr, nullptr, absl::Seconds(1000), publication, &sender});
  sender.Open(&hub);
  ASSERT_TRUE(hub.StartJob(Job(/*staleness=*/2)).ok());
  std::atomic<bool> over = false;
  std::vector<Thread> actors;
  for (int a = 0; a < 3; ++a) {
    actors.push_back(StartThread("actor", [&, a] {
      for (int attachment = 0; !over; ++attachment) {
        const auto sink = std::make_shared<RecordingSink>();
        const RolloutHub::ActorHandle handle =
            hub.Attach(absl::StrCat("actor-", a), sink, true, {.staged = true, .group = "gloo"}).value();
        for (int turn = 0; turn < 200 && !over; ++turn) {
          for (const auto& offer : sink->Take<OfferMessage>()) hub.OnPrepared(handle, "job-1", offer.policy_version);
          for (const auto& told : sink->Take<BroadcastMessage>()) {
            hub.OnVerified(handle, "job-1", told.policy_version, "sum", false);
          }
          for (const auto& told : sink->Take<TransferMessage>()) {
            hub.OnVerified(handle, "job-1", told.policy_version, "sum", false);
          }
          for (const auto& told : sink->Take<CommitMessage>()) hub.OnReady(handle, "job-1", told.policy_version);
          std::this_thread::yield();
        }
        hub.Detach(handle);
      }
    }));
  }
  for (uint64_t version = 1; sender.sent() < kRounds; ++version) {
    hub.Publish(Version(version));
    const uint64_t sent = sender.sent();
    for (int turn = 0; turn < 1000 && sender.sent() == sent; ++turn) std::this_thread::yield();
  }
  over = true;
  for (Thread& actor : actors) actor.Join();
}

TEST_F(RolloutHubTest, BooksBalanceUnderAnySchedule) {
  struct FakeActor {
    std::string id;
    std::shared_ptr<RecordingSink> sink;
    RolloutHub::ActorHandle handle = 0;
  };
  for (uint64_t seed = 0; seed < 12; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Random random(seed);
    ASSERT_TRUE(hub_.StartJob(Job(static_cast<int>(seed % 3))).ok());
    uint64_t version = 1;
    hub_.Publish(Version(version));
    std::vector<FakeActor> actors;
    std::vector<std::pair<std::string, ActorResult>> in_flight;
    const uint64_t steps = 12;
    const uint64_t window = 1 + seed % 3;
    uint64_t issued = 0;
    uint64_t committed = 0;
    uint64_t taken_with_group = 0;
    int events = 0;
    while (committed < steps) {
      ASSERT_LT(++events, 50'000);
      const uint64_t event = random.Below(16);
      if (event == 0 && actors.size() < 4) {
        FakeActor actor;
        actor.id = "actor-" + std::to_string(random.Below(6));
        actor.sink = std::make_shared<RecordingSink>();
        actor.handle = hub_.Attach(actor.id, actor.sink).value();
        actors.push_back(actor);
      } else if (event == 1 && !actors.empty() && random.Below(10) == 0) {
        const size_t pick = random.Below(actors.size());
        hub_.Detach(actors[pick].handle);
        actors.erase(actors.begin() + static_cast<std::ptrdiff_t>(pick));
      } else if (event <= 4 && !actors.empty()) {
        FakeActor& actor = actors[random.Below(actors.size())];
        hub_.OnReady(actor.handle, "job-1", version - (random.Below(4) == 0 && version > 1 ? 1 : 0));
        hub_.OnCredit(actor.handle, 1);
      } else if (event <= 8 && !actors.empty()) {
        FakeActor& actor = actors[random.Below(actors.size())];
        for (const LeaseMessage& lease : actor.sink->Take<LeaseMessage>()) {
          for (size_t i = 0; i < lease.prompts.size(); ++i) {
            ActorResult result = GroupOf(lease, i, version);
            if (random.Below(12) == 0) std::get<ScoredGroup>(result.outcome).completions.clear();
            if (random.Below(12) == 0) result.epoch = 3;
            const uint64_t copies = random.Below(12) == 0 ? 0 : 1 + random.Below(2);
            for (uint64_t copy = 0; copy < copies; ++copy) in_flight.emplace_back(actor.id, result);
          }
        }
      } else if (event <= 12 && !in_flight.empty()) {
        const size_t pick = random.Below(in_flight.size());
        for (const FakeActor& actor : actors) {
          if (actor.id == in_flight[pick].first) hub_.OnResult(actor.handle, in_flight[pick].second);
        }
        in_flight.erase(in_flight.begin() + static_cast<std::ptrdiff_t>(pick));
      } else if (event == 13) {
        if (random.Below(5) == 0) Advance(absl::Seconds(11));
        hub_.Tick();
      } else if (event == 14 && issued < steps && issued - committed < window) {
        ASSERT_TRUE(hub_.Issue(issued, Prompts(issued * 4, 4)).ok());
        ++issued;
      } else if (event == 15 && committed < issued) {
        // Ready already, or not yet: no patience at all.
        const auto groups = hub_.Wait(committed, absl::ZeroDuration());
        if (groups.ok()) {
          for (const TakenGroup& taken : *groups) taken_with_group += taken.group.has_value() ? 1 : 0;
          ASSERT_TRUE(hub_.Commit(committed, Trained(committed * 4, 4)).ok());
          ++committed;
          hub_.Publish(Version(++version));
        } else {
          ASSERT_EQ(groups.status().code(), absl::StatusCode::kUnavailable);
        }
      }
      ASSERT_TRUE(hub_.CheckLedger().ok()) << hub_.CheckLedger();
      ASSERT_TRUE(hub_.Balance().Holds());
    }
    EXPECT_EQ(hub_.Balance().trained, steps * 4);
    EXPECT_EQ(hub_.Balance().frontier, steps * 4);
    EXPECT_GT(taken_with_group, 0u);
    hub_.DisconnectActors(absl::UnavailableError("over"));
    hub_.EndJob();
  }
}

// For ThreadSanitizer above all: everybody at once.
TEST_F(RolloutHubTest, ActorsAndTrainingRunConcurrently) {
  constexpr uint64_t kSteps = 60;
  HubJob job = Job(/*staleness=*/1);
  job.options.max_attempts = 100;
  ASSERT_TRUE(hub_.StartJob(job).ok());
  hub_.Publish(Version(1));
  std::atomic<bool> done{false};
  std::atomic<uint64_t> published{1};
  std::vector<Thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.push_back(StartThread("actor", [&, t] {
      Random random(t);
      while (!done.load()) {
        auto sink = std::make_shared<RecordingSink>();
        const auto handle = hub_.Attach("actor-" + std::to_string(t), sink).value();
        for (int round = 0; round < 8 && !done.load(); ++round) {
          hub_.OnReady(handle, "job-1", published.load());
          hub_.OnCredit(handle, 2);
          for (const LeaseMessage& lease : sink->Take<LeaseMessage>()) {
            for (size_t i = 0; i < lease.prompts.size(); ++i) {
              if (random.Below(10) > 0) hub_.OnResult(handle, GroupOf(lease, i, lease.policy_version));
            }
          }
          hub_.OnHeartbeat(handle, 0, 0);
        }
        hub_.Detach(handle);
      }
    }));
  }
  // However the test ends, the actors do before they are joined.
  struct Finisher {
    ~Finisher() { *done = true; }
    std::atomic<bool>* done;
  } finisher{&done};
  uint64_t issued = 0;
  for (uint64_t step = 0; step < kSteps; ++step) {
    while (issued < kSteps && issued <= step + 1) {
      ASSERT_TRUE(hub_.Issue(issued, Prompts(issued * 4, 4)).ok());
      ++issued;
    }
    const auto groups = hub_.Wait(step, absl::Hours(1));  // of a clock that stands still
    ASSERT_TRUE(groups.ok()) << groups.status();
    for (const TakenGroup& taken : *groups) EXPECT_TRUE(taken.group.has_value()) << taken.error;
    ASSERT_TRUE(hub_.Commit(step, Trained(step * 4, 4)).ok());
    hub_.Publish(Version(step + 2));
    published = step + 2;
    ASSERT_TRUE(hub_.CheckLedger().ok()) << hub_.CheckLedger();
  }
  done = true;
  threads.clear();
  EXPECT_EQ(hub_.Balance().trained, kSteps * 4);
  EXPECT_EQ(hub_.num_actors(), 0);
}

// A job whose groups are scored: 8 groups a step in blocks of 2, thresholds at a tenth of their time.
class RewardHubTest : public RolloutHubTest {
 protected:
  void Start(double park_s, int staleness = 2) {
    HubJob job = Job(staleness);
    job.groups_per_step = 8;
    job.options.objective = ObjectiveKind::kGated;
    job.options.gate.negatives = 1;
    job.options.reward.park_s = park_s;
    job.options.reward.health.window_s = 1;
    job.options.reward.health.silence_s = 1.5;
    job.options.reward.health.probe_s = 1.5;
    job.options.reward.health.successes = 4;
    job.options.reward.health.canary_s = 2;
    ASSERT_TRUE(hub_.StartJob(job).ok());
    hub_.Publish(Version(1));
    ASSERT_TRUE(hub_.Issue(0, Prompts(0, 8)).ok());
    handle_ = Join("a", sink_, 1, 200);
  }

  static ActorResult Scored(const LeaseMessage& lease, size_t i) {
    ActorResult result = GroupOf(lease, i, 1);
    auto& group = std::get<ScoredGroup>(result.outcome);
    group.negative_leaves = {5};
    group.score_status = ScoreStatus::kOk;
    group.ranker_version = "r1";
    const float ordinal = static_cast<float>(group.ordinal);
    group.heads = {ScoreHead{"score", {ordinal, ordinal + 2}, 0, {ordinal + 1}}};
    return result;
  }
  static ActorResult Unscored(const LeaseMessage& lease, size_t i) {
    ActorResult result = GroupOf(lease, i, 1);
    auto& group = std::get<ScoredGroup>(result.outcome);
    group.score_status = ScoreStatus::kUnavailable;
    group.score_error = "UNAVAILABLE: connection refused";
    return result;
  }
  // Answers the lease as a whole.
  void Answer(const LeaseMessage& lease, bool scored) {
    for (size_t i = 0; i < lease.prompts.size(); ++i) {
      EXPECT_TRUE(Deliver(handle_, sink_.get(), scored ? Scored(lease, i) : Unscored(lease, i)).accepted);
    }
  }
  // The canary as the ranker `mind` scores it now.
  void AnswerCanary(const LeaseMessage& lease, float sign) {
    EXPECT_EQ(lease.kind, LeaseKind::kScore);
    for (const Prompt& prompt : lease.prompts) {
      ScoredGroup group;
      group.ordinal = prompt.ordinal;
      group.attempt = prompt.attempt;
      group.lease_id = lease.lease_id;
      group.score_status = ScoreStatus::kOk;
      group.ranker_version = "r1";
      // Its prompts are ordinals 0 to 7 in order: leaves 0 and 1 were scored n and n + 2, leaf 5 n + 1.
      const float n = static_cast<float>(prompt.ordinal);
      EXPECT_EQ(prompt.leaves.size(), 3u);
      group.heads = {ScoreHead{"score", {}, 0, {sign * n, sign * (n + 2), sign * (n + 1)}}};
      EXPECT_TRUE(Deliver(handle_, sink_.get(), {"job-1", 7, group}).accepted);
    }
  }
  // Fails all that goes out, until nothing does.
  void GoDown() {
    for (int i = 0; i < 40 && !IsIn("outage"); ++i) {
      for (const LeaseMessage& lease : sink_->Take<LeaseMessage>()) Answer(lease, false);
      Advance(absl::Milliseconds(100));
      hub_.Tick();
    }
    ASSERT_TRUE(IsIn("outage"));
    for (const LeaseMessage& lease : sink_->Take<LeaseMessage>()) Answer(lease, false);
  }
  bool IsIn(const std::string& state) {
    return metrics_.Text().find("sluice_learner_reward_state{state=\"" + state + "\"} 1\n") != std::string::npos;
  }

  RolloutHub::ActorHandle handle_ = 0;
};

TEST_F(RewardHubTest, AnOutageStopsLeasesAndOneProbesThenWhatWaitedIsScoredFirst) {
  Start(/*park_s=*/60);
  EXPECT_EQ(sink_->Take<LeaseMessage>().size(), 4u);
  Advance(absl::Seconds(31));  // their deadline: an actor's failure is none of the ranker's
  hub_.Tick();
  EXPECT_TRUE(IsIn("healthy"));
  GoDown();
  EXPECT_THAT(metrics_.Text(), HasSubstr("sluice_learner_reward_transitions_total{state=\"outage\"} 1"));
  EXPECT_THAT(metrics_.Text(), HasSubstr("sluice_groups_unscored 8"));
  EXPECT_THAT(hub_.RewardTrouble(), HasSubstr("connection refused"));
  ASSERT_TRUE(hub_.Issue(1, Prompts(8, 8)).ok());
  EXPECT_TRUE(sink_->Take<LeaseMessage>().empty());
  Advance(absl::Milliseconds(1500));
  hub_.Tick();
  EXPECT_TRUE(IsIn("probing"));
  std::vector<LeaseMessage> probe = sink_->Take<LeaseMessage>();
  ASSERT_EQ(probe.size(), 1u);
  EXPECT_EQ(probe[0].prompts[0].ordinal, 0u);  // the oldest
  Answer(probe[0], false);
  EXPECT_TRUE(IsIn("outage"));
  Advance(absl::Milliseconds(2999));
  hub_.Tick();
  EXPECT_TRUE(sink_->Take<LeaseMessage>().empty());
  Advance(absl::Milliseconds(1));
  hub_.Tick();
  std::vector<uint64_t> order;
  for (int i = 0; i < 8; ++i) {
    for (const LeaseMessage& lease : sink_->Take<LeaseMessage>()) {
      if (lease.kind == LeaseKind::kScore) continue;  // the canary, as soon as there is one
      order.push_back(lease.prompts[0].ordinal);
      Answer(lease, true);
    }
  }
  EXPECT_THAT(order, ElementsAre(0, 2, 4, 6, 8, 10, 12, 14));
  EXPECT_TRUE(IsIn("healthy"));
  EXPECT_THAT(metrics_.Text(), HasSubstr("sluice_groups_unscored 0"));
  const std::vector<std::string> news = hub_.TakeRewardNews();
  ASSERT_FALSE(news.empty());
  EXPECT_THAT(news.back(), HasSubstr("rewards: probing to healthy: "));
  const auto taken = hub_.Wait(0, absl::Seconds(1));
  ASSERT_TRUE(taken.ok()) << taken.status();
  for (const TakenGroup& one : *taken) EXPECT_EQ(one.group->score_status, ScoreStatus::kOk);
  EXPECT_TRUE(hub_.CheckLedger().ok()) << hub_.CheckLedger();
}

TEST_F(RewardHubTest, GroupsThatFailWhileOthersAreScoredAreGivenUpAfterThreeTries) {
  Start(/*park_s=*/60);
  std::vector<LeaseMessage> leases = sink_->Take<LeaseMessage>();
  ASSERT_EQ(leases.size(), 4u);
  Answer(leases[0], false);  // one of its items takes too long
  Advance(absl::Milliseconds(1));
  for (size_t i = 1; i < leases.size(); ++i) Answer(leases[i], true);
  int tries = 1;
  for (int i = 0; i < 40; ++i) {
    Advance(absl::Milliseconds(500));
    hub_.Tick();
    for (const LeaseMessage& lease : sink_->Take<LeaseMessage>()) {
      if (lease.kind == LeaseKind::kScore) {
        AnswerCanary(lease, 1);
        continue;
      }
      EXPECT_EQ(lease.prompts[0].ordinal, leases[0].prompts[0].ordinal);
      ++tries;
      Answer(lease, false);
    }
  }
  EXPECT_EQ(tries, 3);
  const auto taken = hub_.Wait(0, absl::Seconds(1));
  ASSERT_TRUE(taken.ok()) << taken.status();
  for (size_t i = 0; i < taken->size(); ++i) {
    EXPECT_EQ((*taken)[i].group->score_status, i < 2 ? ScoreStatus::kUnavailable : ScoreStatus::kOk) << i;
  }
  EXPECT_TRUE(hub_.CheckLedger().ok()) << hub_.CheckLedger();
}

TEST_F(RewardHubTest, WhatWaitedForTooLongComesWithoutScores) {
  Start(/*park_s=*/20);
  GoDown();
  ASSERT_TRUE(hub_.Issue(1, Prompts(8, 8)).ok());
  Advance(absl::Seconds(20));
  hub_.Tick();  // probes with the oldest group, and gives up on the others
  const std::vector<LeaseMessage> probe = sink_->Take<LeaseMessage>();
  ASSERT_EQ(probe.size(), 1u);
  Answer(probe[0], false);
  hub_.Tick();
  const auto sampled = hub_.Wait(0, absl::Seconds(1));
  ASSERT_TRUE(sampled.ok()) << sampled.status();
  for (const TakenGroup& one : *sampled) EXPECT_EQ(one.group->score_status, ScoreStatus::kUnavailable);
  const auto never = hub_.Wait(1, absl::Seconds(1));
  ASSERT_TRUE(never.ok()) << never.status();
  for (const TakenGroup& one : *never) {
    EXPECT_FALSE(one.group.has_value());
    EXPECT_TRUE(one.reward_outage);
  }
  EXPECT_TRUE(hub_.CheckLedger().ok()) << hub_.CheckLedger();
}

TEST_F(RewardHubTest, WithoutParkingAGroupWithoutScoresIsAnOutcomeAtOnceAndProbesStillGoOut) {
  Start(/*park_s=*/0);
  uint64_t step = 0;
  int leases = 0;
  for (int i = 0; i < 100; ++i) {
    for (const LeaseMessage& lease : sink_->Take<LeaseMessage>()) {
      if (IsIn("probing")) ++leases;
      Answer(lease, false);
    }
    if (hub_.Wait(step, absl::ZeroDuration()).ok()) {
      ASSERT_TRUE(hub_.Commit(step, Trained(8 * step, 8)).ok());
      ++step;
      ASSERT_TRUE(hub_.Issue(step, Prompts(8 * step, 8)).ok());
    }
    Advance(absl::Milliseconds(100));
    hub_.Tick();
  }
  EXPECT_GE(step, 50u);
  EXPECT_GE(leases, 2);
  EXPECT_LE(leases, 4);  // 1.5, 3, 6 seconds after the one before
  EXPECT_TRUE(hub_.CheckLedger().ok()) << hub_.CheckLedger();
}

TEST_F(RewardHubTest, TheCanaryGoesToAnActorAndARankerThatTurnedIsNotBelieved) {
  Start(/*park_s=*/60);
  for (const LeaseMessage& lease : sink_->Take<LeaseMessage>()) Answer(lease, true);
  Advance(absl::Seconds(2));
  hub_.Tick();
  std::vector<LeaseMessage> canary = sink_->Take<LeaseMessage>();
  ASSERT_EQ(canary.size(), 1u);
  ASSERT_EQ(canary[0].prompts.size(), 8u);
  AnswerCanary(canary[0], 1);
  EXPECT_TRUE(IsIn("healthy"));
  Advance(absl::Seconds(2));
  hub_.Tick();
  canary = sink_->Take<LeaseMessage>();
  ASSERT_EQ(canary.size(), 1u);
  ASSERT_TRUE(hub_.Issue(1, Prompts(8, 8)).ok());
  const std::vector<LeaseMessage> out = sink_->Take<LeaseMessage>();
  ASSERT_EQ(out.size(), 4u);
  AnswerCanary(canary[0], -1);
  EXPECT_TRUE(IsIn("outage"));
  for (const LeaseMessage& lease : out) Answer(lease, true);  // scored by the same ranker
  EXPECT_THAT(metrics_.Text(), HasSubstr("sluice_groups_unscored 8"));
  Advance(absl::Seconds(2));
  hub_.Tick();
  canary = sink_->Take<LeaseMessage>();
  ASSERT_EQ(canary.size(), 1u);  // and no group before it
  AnswerCanary(canary[0], 1);
  EXPECT_TRUE(IsIn("healthy"));  // eight in a row, and in range
  EXPECT_FALSE(sink_->Take<LeaseMessage>().empty());
}

TEST_F(RewardHubTest, WhatCameSinceTheLastGoodCanaryIsNotBelievedEither) {
  Start(/*park_s=*/60);
  for (const LeaseMessage& lease : sink_->Take<LeaseMessage>()) Answer(lease, true);  // step 0
  Advance(absl::Seconds(2));
  hub_.Tick();
  AnswerCanary(sink_->Take<LeaseMessage>().at(0), 1);
  Advance(absl::Seconds(1));
  ASSERT_TRUE(hub_.Issue(1, Prompts(8, 8)).ok());
  for (const LeaseMessage& lease : sink_->Take<LeaseMessage>()) Answer(lease, true);
  Advance(absl::Seconds(1));
  hub_.Tick();
  AnswerCanary(sink_->Take<LeaseMessage>().at(0), -1);
  const auto before = hub_.Wait(0, absl::Seconds(1)), after = hub_.Wait(1, absl::Seconds(1));
  ASSERT_TRUE(before.ok() && after.ok());
  for (const TakenGroup& one : *before) EXPECT_EQ(one.group->score_status, ScoreStatus::kOk);
  for (const TakenGroup& one : *after) {
    EXPECT_EQ(one.group->score_status, ScoreStatus::kInvalid);
    EXPECT_TRUE(one.group->heads.empty());
    EXPECT_THAT(one.group->score_error, HasSubstr("canary is out of range"));
  }
}

TEST_F(RewardHubTest, CanariesGoToTheActorsInTurn) {
  Start(/*park_s=*/60);
  for (const LeaseMessage& lease : sink_->Take<LeaseMessage>()) Answer(lease, true);
  const auto other_sink = std::make_shared<RecordingSink>();
  const auto other = Join("b", other_sink, 1, 200);
  for (int turn = 0; turn < 4; ++turn) {
    Advance(absl::Seconds(2));
    hub_.Tick();
    const bool others = turn % 2 == 1;
    const auto canary = (others ? other_sink : sink_)->Take<LeaseMessage>();
    ASSERT_EQ(canary.size(), 1u) << "turn " << turn;
    hub_.OnResult(others ? other : handle_,
                  {"job-1", 7, AbandonedPrompt{0, 1, canary[0].lease_id, "has better things to do", false}});
  }
}

TEST_F(RewardHubTest, ACanaryIsAskedAgainWhenItsActorLeavesOrGivesItBackAndEarlierActorsGetNone) {
  Start(/*park_s=*/60);
  for (const LeaseMessage& lease : sink_->Take<LeaseMessage>()) Answer(lease, true);
  const auto old_sink = std::make_shared<RecordingSink>();
  Advance(absl::Seconds(2));
  hub_.Tick();
  std::vector<LeaseMessage> canary = sink_->Take<LeaseMessage>();
  ASSERT_EQ(canary.size(), 1u);
  const auto give_back = [&] {
    return Deliver(handle_, sink_.get(), {"job-1", 7, AbandonedPrompt{0, 1, canary[0].lease_id, "drains", false}});
  };
  EXPECT_TRUE(give_back().accepted);
  Advance(absl::Seconds(2));
  hub_.Tick();
  canary = sink_->Take<LeaseMessage>();
  ASSERT_EQ(canary.size(), 1u);
  hub_.Detach(handle_);
  const auto earlier = hub_.Attach("earlier-release", old_sink, /*scores_alone=*/false).value();
  hub_.OnReady(earlier, "job-1", 1);
  hub_.OnCredit(earlier, 8);
  Advance(absl::Seconds(2));
  hub_.Tick();
  EXPECT_TRUE(old_sink->Take<LeaseMessage>().empty());
  handle_ = Join("b", sink_, 1, 8);
  EXPECT_EQ(sink_->Take<LeaseMessage>().size(), 1u);
  EXPECT_TRUE(IsIn("healthy"));
}

TEST_F(RewardHubTest, AJobWithoutScoresHasNoStateAndNeitherHasNoJob) {
  ASSERT_TRUE(hub_.StartJob(Job(2)).ok());
  EXPECT_FALSE(IsIn("healthy"));
  hub_.EndJob();
  Start(/*park_s=*/60);
  EXPECT_TRUE(IsIn("healthy"));
  hub_.EndJob();
  EXPECT_FALSE(IsIn("healthy"));
  EXPECT_EQ(hub_.RewardTrouble(), "");
}

}  // namespace
}  // namespace sluice::learner
