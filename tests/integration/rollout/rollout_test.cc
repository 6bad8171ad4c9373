// A learner rank's hub and services with real actor clients over loopback. Only sampling is made up: a group is a
// function of (seed of its block, ordinal, version), so that it can be told who made it.
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "actor/rpc/actor_client.h"
#include "actor/rpc/peer_policies.h"
#include "common/random/random.h"
#include "common/rpc/server.h"
#include "common/sync/thread.h"
#include "common/time/clock.h"
#include "common/transfer/catalog_document.h"
#include "learner/ledger/rollout_hub.h"
#include "learner/publish/policy_store.h"
#include "learner/rpc/policy_service.h"
#include "learner/rpc/rollout_service.h"

namespace sluice {
namespace {

constexpr absl::Duration kGenerous = absl::Seconds(60);
constexpr uint64_t kGroups = 8;  // a step

// Weights that say their version.
std::shared_ptr<const learner::PolicySnapshot> Weights(uint64_t version) {
  return learner::MakeSnapshot(version, std::vector<float>(1000, static_cast<float>(version)));
}

// An actor process without its process.
class TestActor : public actor::PolicyLoader {
 public:
  // fail_every: each n-th block fails; 0: none. sends_on: it serves its weights to other actors. make_receiver: weights
  // may come to it by a broadcast.
  TestActor(const std::string& id, const std::string& rank, int fail_every, bool sends_on = false,
            actor::MakeWeightReceiver make_receiver = nullptr)
      : fail_every_(fail_every) {
    actor::ActorClientOptions options;
    if (make_receiver != nullptr) options.weight_group = "gloo";
    options.make_receiver = std::move(make_receiver);
    if (sends_on) {
      peer_server_ = RpcServer::Start("127.0.0.1:0", {&peers_}).value();
      options.peers = &peers_;
      options.peer_address = peer_server_->address();
    }
    options.actor_id = id;
    options.learner = rank;
    options.has_rewards = false;
    options.reconnect.initial_backoff = absl::Milliseconds(1);
    options.reconnect.max_backoff = absl::Milliseconds(20);
    options.now = MonotonicClock();
    client_ = std::make_unique<actor::ActorClient>(
        options, this,
        [this](const actor::JobContext& job, const actor::LeaseBlock& block) { return Execute(job, block); });
    runner_ = StartThread("actor", [this] { EXPECT_TRUE(client_->Run().ok()); });
  }
  ~TestActor() override {
    client_->Drain("the test lets it go");
    runner_.Join();
    if (peer_server_ != nullptr) peer_server_->Shutdown(absl::ZeroDuration());
  }

  // Other actors no longer reach it; the rank does not know.
  void StopSendingOn() { peer_server_->Shutdown(absl::ZeroDuration()); }
  // What it sends on is not what it samples with.
  void DamageWhatItSendsOn() { damaged_ = true; }

  absl::Status SetJob(const std::string&, std::shared_ptr<const Trie> trie) override {
    EXPECT_EQ(trie->num_items(), 2);
    version_ = 0;
    return absl::OkStatus();
  }
  absl::StatusOr<absl::Span<char>> Stage(uint64_t bytes) override {
    EXPECT_EQ(bytes, 4000u);
    return absl::MakeSpan(reinterpret_cast<char*>(shadow_.data()), 4000);
  }
  absl::Status Commit(uint64_t version) override {
    EXPECT_EQ(shadow_[999], static_cast<float>(version));
    auto active = std::make_shared<std::vector<float>>(shadow_);
    if (damaged_) active->front() += 1;
    active_ = std::move(active);
    version_ = version;
    return absl::OkStatus();
  }
  void EndJob() override { version_ = 0; }
  actor::HeldWeights Active() override {
    return {active_, {reinterpret_cast<const char*>(active_->data()), active_->size() * sizeof(float)}};
  }

 private:
  absl::StatusOr<std::vector<actor::PromptOutcome>> Execute(const actor::JobContext& job,
                                                            const actor::LeaseBlock& block) {
    const uint64_t version = version_;
    if (version < block.policy_version || (block.exact_version && version != block.policy_version)) {
      return absl::FailedPreconditionError("not the version that the lease asks for");
    }
    if (fail_every_ > 0 && ++blocks_ % fail_every_ == 0) return absl::InternalError("as the test wishes");
    std::vector<actor::PromptOutcome> outcomes;
    for (const actor::LeasedPrompt& leased : block.prompts) {
      ScoredGroup group;
      group.ordinal = leased.prompt.ordinal;
      group.attempt = leased.prompt.attempt;
      group.lease_id = block.lease_id;
      group.behavior_version = version;
      group.catalog_version = job.catalog_version;
      Random random(DeriveSeed(block.seed, {group.ordinal, version, block.prompts.size()}));
      for (int g = 0; g < job.decode.group_size; ++g) {
        const int32_t leaf = static_cast<int32_t>(random.Below(2));
        group.completions.push_back(
            Completion{{3 + leaf, 5}, leaf, {-static_cast<float>(random.Uniform()), 0}, {-0.5f, 0}});
      }
      outcomes.push_back(actor::PromptOutcome{group.ordinal, group.attempt, block.lease_id, group});
    }
    return outcomes;
  }

  const int fail_every_;
  int blocks_ = 0;  // of the working thread
  std::vector<float> shadow_ = std::vector<float>(1000);
  std::shared_ptr<const std::vector<float>> active_;  // of the fetching thread
  std::atomic<uint64_t> version_{0};
  std::atomic<bool> damaged_{false};
  actor::PeerPolicies peers_{{.chunk_bytes = 700}};
  std::unique_ptr<RpcServer> peer_server_;
  std::unique_ptr<actor::ActorClient> client_;
  Thread runner_;
};

class RolloutIntegrationTest : public testing::Test {
 protected:
  explicit RolloutIntegrationTest(const learner::PublicationOptions& publication = {},
                                  learner::WeightSender* sender = nullptr)
      : trie_(Trie::Build(2, {3, 5, 4, 5}).value()),
        hub_({MonotonicClock(), &metrics_, &store_, absl::Minutes(5), publication, sender}),
        rollouts_(&hub_),
        policies_(&store_, {.chunk_bytes = 700, .metrics = &metrics_}) {}

  void SetUp() override {
    auto server = RpcServer::Start("127.0.0.1:0", {&rollouts_, &policies_});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  void TearDown() override {
    hub_.DisconnectActors(absl::UnavailableError("the test is over"));
    server_->Shutdown(absl::ZeroDuration());
  }

  void StartJob(int staleness) {
    learner::HubJob job;
    job.job_id = "job-1";
    job.epoch = 1;
    job.seed = 42;
    job.model_config_json = "{}";
    job.catalog_version = trie_.version();
    job.levels = 2;
    job.find_leaf = [this](absl::Span<const int32_t> tokens) { return trie_.FindLeaf(tokens); };
    job.groups_per_step = kGroups;
    job.options.staleness = staleness;
    job.options.group_size = 4;
    job.options.lease_groups = 4;
    job.options.max_attempts = 100;
    job.options.objective = learner::ObjectiveKind::kNllOnly;
    job.options.sampler = SamplerKind::kSample;
    store_.PutCatalog("job-1", trie_);
    ASSERT_TRUE(hub_.StartJob(job).ok());
  }

  void Issue(uint64_t step) {
    std::vector<Prompt> prompts(kGroups);
    for (uint64_t i = 0; i < kGroups; ++i) prompts[i].ordinal = step * kGroups + i;
    ASSERT_TRUE(hub_.Issue(step, std::move(prompts)).ok());
  }

  // Waits for the step's groups, commits them as trained and returns them.
  std::vector<learner::TakenGroup> Train(uint64_t step) {
    absl::StatusOr<std::vector<learner::TakenGroup>> groups = hub_.Wait(step, kGenerous);
    EXPECT_TRUE(groups.ok()) << groups.status();
    if (!groups.ok()) return {};
    std::vector<learner::Verdict> verdicts;
    for (const learner::TakenGroup& taken : *groups) {
      EXPECT_TRUE(taken.group.has_value()) << taken.error;
      verdicts.push_back({taken.prompt.ordinal, learner::TerminalState::kTrained, "open"});
    }
    EXPECT_TRUE(hub_.Commit(step, verdicts).ok());
    EXPECT_TRUE(hub_.CheckLedger().ok()) << hub_.CheckLedger();
    return *std::move(groups);
  }

  std::unique_ptr<TestActor> NewActor(int fail_every = 0) {
    return std::make_unique<TestActor>("actor-" + std::to_string(next_actor_++), server_->address(), fail_every);
  }

  // A synchronous job of `steps`; `disturb` is called between a step's issue and its end. Log-probabilities by ordinal.
  std::map<uint64_t, std::vector<float>> RunSynchronous(uint64_t steps, const std::function<void(uint64_t)>& disturb) {
    StartJob(/*staleness=*/0);
    std::map<uint64_t, std::vector<float>> sampled;
    for (uint64_t step = 0; step < steps; ++step) {
      hub_.Publish(Weights(step + 1));
      Issue(step);
      disturb(step);
      for (const learner::TakenGroup& taken : Train(step)) {
        EXPECT_EQ(taken.group->behavior_version, step + 1);
        for (const Completion& completion : taken.group->completions) {
          sampled[taken.prompt.ordinal].push_back(completion.log_probs_full[0]);
        }
      }
    }
    EXPECT_EQ(hub_.Balance().trained, steps * kGroups);
    hub_.EndJob();
    store_.Clear();
    return sampled;
  }

  double Value(const std::string& series) {
    const std::string text = metrics_.Text();
    const size_t at = text.find("\n" + series + " ");
    return at == std::string::npos ? 0 : std::stod(text.substr(at + series.size() + 2));
  }

  Trie trie_;
  Metrics metrics_;
  learner::PolicyStore store_;
  learner::RolloutHub hub_;
  learner::GrpcRolloutService rollouts_;
  learner::GrpcPolicyService policies_;
  std::unique_ptr<RpcServer> server_;
  int next_actor_ = 0;
};

TEST_F(RolloutIntegrationTest, AnAsynchronousJobStaysWithinItsStalenessWhileActorsComeAndGo) {
  constexpr uint64_t kSteps = 40;
  constexpr uint64_t kStaleness = 2;
  StartJob(kStaleness);
  hub_.Publish(Weights(1));
  std::vector<std::unique_ptr<TestActor>> actors;
  for (int i = 0; i < 3; ++i) actors.push_back(NewActor(/*fail_every=*/i == 0 ? 5 : 0));
  uint64_t issued = 0;
  for (uint64_t step = 0; step < kSteps; ++step) {
    while (issued < kSteps && issued <= step + kStaleness) Issue(issued++);
    if (step % 7 == 3) actors[step % 3] = NewActor();  // one drains, another comes
    if (step % 11 == 5) hub_.DisconnectActors(absl::AbortedError("a new epoch"));
    const uint64_t learner_version = step + 1;
    for (const learner::TakenGroup& taken : Train(step)) {
      EXPECT_LE(taken.group->behavior_version, learner_version);
      EXPECT_GE(taken.group->behavior_version + kStaleness, learner_version) << "step " << step;
    }
    hub_.Publish(Weights(learner_version + 1));
  }
  const learner::LedgerBalance balance = hub_.Balance();
  EXPECT_EQ(balance.trained, kSteps * kGroups);
  EXPECT_EQ(balance.frontier, kSteps * kGroups);
  EXPECT_EQ(balance.open, 0u);
}

TEST_F(RolloutIntegrationTest, ASynchronousJobSamplesTheSameWhoeverSamples) {
  constexpr uint64_t kSteps = 12;
  std::map<uint64_t, std::vector<float>> calm;
  {
    const auto actor = NewActor();
    calm = RunSynchronous(kSteps, [](uint64_t) {});
  }
  ASSERT_EQ(calm.size(), kSteps * kGroups);
  std::vector<std::unique_ptr<TestActor>> actors;
  for (int i = 0; i < 3; ++i) actors.push_back(NewActor(/*fail_every=*/i == 1 ? 3 : 0));
  const auto stormy = RunSynchronous(kSteps, [&](uint64_t step) {
    if (step % 3 == 1) actors[step % 3] = NewActor();
    if (step % 4 == 2) hub_.DisconnectActors(absl::UnavailableError("a hiccup"));
  });
  EXPECT_EQ(stormy, calm);
}

TEST_F(RolloutIntegrationTest, ActorsThatAreThereBeforeTheJobWorkOnTheNextOneToo) {
  const auto actor = NewActor();
  for (int job = 0; job < 3; ++job) EXPECT_EQ(RunSynchronous(2, [](uint64_t) {}).size(), 2 * kGroups);
}

// The rank sends a version to two actors; the other ten take it from one another. The quorum makes each step wait for
// all of them, so that every version goes to every actor.
class FanOutTest : public RolloutIntegrationTest {
 protected:
  static constexpr int kActors = 12;
  static constexpr int kBranching = 2;
  static constexpr double kWeightBytes = 4000;

  FanOutTest() : RolloutIntegrationTest({.min_actors = kActors, .branching = kBranching}) {}

  void SetUp() override {
    RolloutIntegrationTest::SetUp();
    StartJob(/*staleness=*/2);
    for (int i = 0; i < kActors; ++i) {
      actors_.push_back(std::make_unique<TestActor>("actor-" + std::to_string(i), server_->address(), 0,
                                                    /*sends_on=*/true));
    }
  }
  void TearDown() override {
    actors_.clear();
    RolloutIntegrationTest::TearDown();
  }

  void Step() {
    hub_.Publish(Weights(++version_));
    Issue(version_ - 1);
    Train(version_ - 1);
  }
  // Copies of the weights that left the rank. Its catalog went to each actor once.
  double CopiesSentByRank() {
    const double catalogs = kActors * static_cast<double>(CatalogToJson(trie_).size());
    return (Value("sluice_weight_bytes_total") - catalogs) / kWeightBytes;
  }

  std::vector<std::unique_ptr<TestActor>> actors_;
  uint64_t version_ = 0;
};

TEST_F(FanOutTest, TheRankSendsAVersionAsOftenAsItBranchesAndNoMore) {
  constexpr int kSteps = 10;
  for (int i = 0; i < kSteps; ++i) Step();
  // A chunk is counted when the transport took it, which may be after its receiver has it.
  EXPECT_LE(CopiesSentByRank(), kSteps * kBranching);
  EXPECT_GT(CopiesSentByRank(), (kSteps - 1) * kBranching);
  EXPECT_EQ(Value("sluice_publish_transfers_total{source=\"peer\"}"), kSteps * (kActors - kBranching));
  EXPECT_EQ(Value("sluice_publish_transfers_total{source=\"rank\"}"), kSteps * kBranching);
  for (const char* reason : {"no_peer", "late", "peer_failed"}) {
    EXPECT_EQ(Value(absl::StrCat("sluice_publish_fallbacks_total{reason=\"", reason, "\"}")), 0) << reason;
  }
}

TEST_F(FanOutTest, WhatActorsDoNotDeliverTheRankDoes) {
  constexpr int kSteps = 10;
  Step();
  for (int i = 0; i < kActors; i += 2) {
    i % 4 == 0 ? actors_[static_cast<size_t>(i)]->StopSendingOn()
               : actors_[static_cast<size_t>(i)]->DamageWhatItSendsOn();
  }
  // Who is asked is a matter of who is first. Whatever happens, nobody gets anything else and all get it.
  for (int i = 1; i < kSteps; ++i) Step();
  const double failed = Value("sluice_publish_fallbacks_total{reason=\"peer_failed\"}");
  EXPECT_GT(failed, 0);
  EXPECT_LE(CopiesSentByRank(),
            kSteps * kBranching + failed + Value("sluice_publish_fallbacks_total{reason=\"no_peer\"}"));
}

TEST_F(FanOutTest, ActorsThatComeAndGoAmongTheOthersGetTheirWeights) {
  Step();
  for (int i = 0; i < 6; ++i) {
    actors_[static_cast<size_t>(2 * i)] = nullptr;  // drains, with whoever fetches from it
    hub_.Publish(Weights(++version_));
    Issue(version_ - 1);
    actors_[static_cast<size_t>(2 * i)] =
        std::make_unique<TestActor>("another-" + std::to_string(i), server_->address(), 0, /*sends_on=*/i % 2 == 0);
    Train(version_ - 1);
  }
  EXPECT_EQ(hub_.Balance().trained, version_ * kGroups);
}

// A weight group in one memory: a broadcast is over once the sender and all members are there.
class MemoryGroup : public learner::WeightSender {
 public:
  // `store` and `hub` outlive the calls.
  void Open(const learner::PolicyStore* store, learner::RolloutHub* hub) {
    kept_ = store;
    told_ = hub;
  }

  void Send(learner::BroadcastOrder order) override {
    {
      MutexLock lock(&group_mutex_);
      sending_ = std::move(order);
    }
    Complete();
  }
  void Abort(uint64_t epoch) override {
    std::optional<learner::BroadcastOrder> ended;
    {
      MutexLock lock(&group_mutex_);
      dead_ = std::max(dead_, epoch);
      here_.clear();
      if (sending_ && sending_->place.epoch <= dead_) ended.swap(sending_);
      group_changed_.NotifyAll();
    }
    if (ended) told_->OnBroadcast(ended->place.epoch, ended->version, false);
  }
  absl::Status Receive(const GroupPlace& place, bool takes_part, absl::Span<char> bytes) {
    uint64_t round = 0;
    {
      MutexLock lock(&group_mutex_);
      if (takes_part && place.epoch > dead_) here_.insert(place.rank);
      round = rounds_;
    }
    Complete();
    MutexLock lock(&group_mutex_);
    while (place.epoch > dead_ && (!takes_part || rounds_ == round)) group_changed_.Wait(&group_mutex_);
    if (!takes_part || rounds_ == round) return absl::AbortedError("the group was given up");
    std::copy(payload_.begin(), payload_.end(), bytes.begin());
    return absl::OkStatus();
  }

 private:
  void Complete() {
    std::optional<learner::BroadcastOrder> done;
    {
      MutexLock lock(&group_mutex_);
      if (!sending_ || here_.size() + 1 != static_cast<size_t>(sending_->place.world_size)) return;
      done.swap(sending_);
      here_.clear();
      payload_ = kept_->Find(done->job_id, done->version).value()->payload;
      ++rounds_;
      group_changed_.NotifyAll();
    }
    told_->OnBroadcast(done->place.epoch, done->version, true);
  }

  const learner::PolicyStore* kept_ = nullptr;
  learner::RolloutHub* told_ = nullptr;
  Mutex group_mutex_;
  CondVar group_changed_;
  std::optional<learner::BroadcastOrder> sending_ ABSL_GUARDED_BY(group_mutex_);
  std::set<int> here_ ABSL_GUARDED_BY(group_mutex_);  // ranks
  std::string payload_ ABSL_GUARDED_BY(group_mutex_);
  uint64_t rounds_ ABSL_GUARDED_BY(group_mutex_) = 0;
  uint64_t dead_ ABSL_GUARDED_BY(group_mutex_) = 0;
};

class MemoryReceiver : public actor::WeightReceiver {
 public:
  MemoryReceiver(MemoryGroup* group, bool stuck) : group_(group), stuck_(stuck) {}
  absl::Status Receive(const GroupPlace& place, absl::Span<char> bytes, uint64_t, absl::Duration) override {
    return group_->Receive(place, !stuck_, bytes);
  }
  void Abort(uint64_t epoch) override { group_->Abort(epoch); }

 private:
  MemoryGroup* const group_;
  const bool stuck_;
};

// The quorum makes each step wait until three actors have the version.
class BroadcastTest : protected MemoryGroup, public RolloutIntegrationTest {
 protected:
  static constexpr int kActors = 3;

  BroadcastTest()
      : RolloutIntegrationTest({.min_actors = kActors, .group = "gloo", .group_timeout = absl::Milliseconds(200)},
                               this) {
    Open(&store_, &hub_);
  }
  void SetUp() override {
    RolloutIntegrationTest::SetUp();
    StartJob(/*staleness=*/2);
  }
  void TearDown() override {
    actors_.clear();
    hub_.EndJob();
    RolloutIntegrationTest::TearDown();
  }

  void Come(bool stuck = false) {
    MemoryGroup* const group = this;
    actors_.push_back(std::make_unique<TestActor>(
        absl::StrCat("actor-", next_actor_++), server_->address(), 0, false,
        [group, stuck](std::shared_ptr<KvStore>) { return std::make_shared<MemoryReceiver>(group, stuck); }));
  }
  void Step() {
    hub_.Publish(Weights(++version_));
    Issue(version_ - 1);
    Train(version_ - 1);
  }
  double Transfers(const std::string& source) {
    return Value(absl::StrCat("sluice_publish_transfers_total{source=\"", source, "\"}"));
  }
  double Fallbacks(const std::string& reason) {
    return Value(absl::StrCat("sluice_publish_fallbacks_total{reason=\"", reason, "\"}"));
  }

  std::vector<std::unique_ptr<TestActor>> actors_;
  uint64_t version_ = 0;
};

TEST_F(BroadcastTest, OnceAllAreThereEveryVersionIsBroadcastAndNothingIsFetched) {
  for (int i = 0; i < kActors; ++i) Come();
  Step();  // some come after the version and fetch it
  const double broadcast = Transfers("group");
  const double fetched = Transfers("rank") + Transfers("peer");
  EXPECT_EQ(broadcast + fetched, kActors);
  for (int i = 0; i < 10; ++i) Step();
  EXPECT_EQ(Transfers("group"), broadcast + 10 * kActors);
  EXPECT_EQ(Transfers("rank") + Transfers("peer"), fetched);
  EXPECT_LE(Value("sluice_publish_groups_total"), 2);
  EXPECT_EQ(Value("sluice_publish_mismatches_total"), 0);
}

TEST_F(BroadcastTest, AMemberThatHangsCostsRoundsAndNoVersion) {
  Come();
  Come();
  Come(/*stuck=*/true);
  for (int i = 0; i < 6; ++i) Step();
  // Three rounds, and then the rank does not try again for a while; everybody has had every version.
  EXPECT_EQ(Value("sluice_publish_group_pauses_total"), 1);
  EXPECT_EQ(Value("sluice_publish_group_paused"), 1);
  EXPECT_GE(Fallbacks("group_late"), 3);
  EXPECT_EQ(Value("sluice_actor_version_lag_max"), 0);
}

TEST_F(BroadcastTest, MembersComeAndGo) {
  for (int i = 0; i < kActors; ++i) Come();
  for (int i = 0; i < 12; ++i) {
    hub_.Publish(Weights(++version_));
    Issue(version_ - 1);
    if (i % 3 == 1) {
      actors_.erase(actors_.begin());
      Come();
    }
    if (i % 5 == 3) hub_.DisconnectActors(absl::UnavailableError("a hiccup"));
    Train(version_ - 1);
  }
  EXPECT_GT(Transfers("group"), 0);
  EXPECT_EQ(Value("sluice_publish_mismatches_total"), 0);
  EXPECT_EQ(hub_.Balance().trained, 12 * kGroups);
}

}  // namespace
}  // namespace sluice
