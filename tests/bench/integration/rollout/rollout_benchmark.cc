// A learner rank's rollout service over gRPC on loopback, its actors in another process:
//   Flow          groups a second with scripted actors, judged and committed; server_cpu_us: CPU time of the rank's
//                 process a group, so that a rank with a core of its own takes 1e6 / server_cpu_us groups a second
//   IdleActors    cpu_percent: what attached actors that only beat cost the rank, in percent of one core
//   LeaseToGroup  from the lease on its way to its groups in the ledger, with an actor that samples in no time and a
//   reward
//                 server that does not wait for company, in one process: p50_ms and p99_ms
#include <benchmark/benchmark.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "actor/rollout/rollout_worker.h"
#include "actor/rpc/actor_client.h"
#include "actor/rpc/grpc_reward_client.h"
#include "actor/rpc/work_session.h"
#include "common/log/log.h"
#include "common/random/random.h"
#include "common/rpc/channel.h"
#include "common/rpc/group_proto.h"
#include "common/rpc/server.h"
#include "common/status/status.h"
#include "common/sync/thread.h"
#include "common/time/clock.h"
#include "learner/ledger/rollout_hub.h"
#include "learner/objective/judge.h"
#include "learner/publish/policy_store.h"
#include "learner/rpc/policy_service.h"
#include "learner/rpc/rollout_service.h"
#include "reward_server/batch/batcher.h"
#include "reward_server/ranker/cooccurrence_ranker.h"
#include "reward_server/ranker/ranker_set.h"
#include "reward_server/rpc/reward_service.h"
#include "tests/testing/forked_clients.h"
#include "tests/testing/scripted_group.h"
#include "tests/testing/synthetic_dataset.h"

namespace sluice {
namespace {

constexpr int kGroups = 64;   // a step
constexpr int kUsers = 1000;  // of the data set, which both processes make alike

double CpuSeconds() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// An actor that answers each lease at once with groups made beforehand; its stream is the real one.
class ScriptedActor {
 public:
  ScriptedActor(const std::string& address, const std::string& id, const std::vector<v1::ScoredGroup>* scripts)
      : session_(MakeChannel(address), {.actor_id = id}), scripts_(scripts) {
    runner_ = StartThread("actor", [this] {
      session_.Run([] { return v1::Heartbeat(); }, [this](const v1::RankMessage& message) { return Receive(message); })
          .IgnoreError();
    });
  }

 private:
  absl::Status Receive(const v1::RankMessage& message) {
    v1::ActorMessage reply;
    if (message.has_policy_offer()) {
      v1::Verified* const held = reply.mutable_verified();  // as if it had fetched them before
      held->set_job_id(message.policy_offer().job_id());
      held->set_policy_version(message.policy_offer().policy_version());
      held->set_checksum(message.policy_offer().checksum());
      session_.Send(std::move(reply));
    } else if (message.has_policy_commit()) {
      reply.mutable_ready()->set_job_id(message.policy_commit().job_id());
      reply.mutable_ready()->set_policy_version(message.policy_commit().policy_version());
      session_.Send(reply);
      reply.mutable_credit()->set_leases(scripts_->empty() ? 0 : 2);
      session_.Send(std::move(reply));
    } else if (message.has_lease()) {
      for (const v1::PromptToSample& prompt : message.lease().prompts()) {
        v1::Result* result = reply.mutable_result();
        result->set_job_id("job");
        result->set_epoch(1);
        *result->mutable_group() = (*scripts_)[prompt.ordinal() % scripts_->size()];
        result->mutable_group()->set_ordinal(prompt.ordinal());
        result->mutable_group()->set_attempt(prompt.attempt());
        result->mutable_group()->set_lease_id(message.lease().lease_id());
        session_.Send(std::move(reply));
      }
      reply.mutable_credit()->set_leases(1);
      session_.Send(std::move(reply));
    }
    return absl::OkStatus();
  }

  actor::WorkSession session_;
  const std::vector<v1::ScoredGroup>* const scripts_;
  Thread runner_;
};

// In the client process: "<actors> <0 idle, 1 working> <address>". Never ends by itself.
void RunActors(const std::string& order) {
  const std::vector<std::string> words = absl::StrSplit(order, ' ');
  InitLogging("actors", LogFormat::kText, LogLevel::kError);
  std::vector<v1::ScoredGroup> scripts;
  if (words.at(1) == "1") {
    const auto dataset = SyntheticDataset(kUsers);
    Random random(5);
    for (int i = 0; i < 32; ++i) ToProto(ScriptedGroup(*dataset, 16, 4, &random), &scripts.emplace_back());
  }
  std::vector<std::unique_ptr<ScriptedActor>> actors;
  for (int a = 0; a < std::stoi(words.at(0)); ++a) {
    actors.push_back(std::make_unique<ScriptedActor>(words.at(2), absl::StrCat("actor-", a), &scripts));
  }
  while (true) pause();
}

ForkedClients clients(RunActors);

// A rank's hub and services, with a job open.
class Rank {
 public:
  Rank() : dataset(SyntheticDataset(kUsers)) {
    InitLogging("bench", LogFormat::kText, LogLevel::kError);
    job.job_id = "job";
    job.epoch = 1;
    job.model_config_json = "{}";
    job.catalog_version = dataset->trie().version();
    job.levels = 4;
    job.find_leaf = [trie = dataset->shared_trie()](absl::Span<const int32_t> tokens) {
      return trie->FindLeaf(tokens);
    };
    job.groups_per_step = kGroups;
    job.options.reward.ranker = "cooccurrence";
    store.PutCatalog("job", dataset->trie());
    SLUICE_CHECK(hub.StartJob(job).ok(), "the job opens");
    hub.Publish(learner::MakeSnapshot(1, std::vector<float>(1000)));
  }
  ~Rank() {
    hub.DisconnectActors(absl::UnavailableError("the benchmark is over"));
    server->Shutdown(absl::ZeroDuration());
  }

  void WaitForActors(int count) {
    while (hub.num_actors() < count) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  void Issue(uint64_t step, int groups) {
    std::vector<Prompt> prompts(static_cast<size_t>(groups));
    for (size_t i = 0; i < prompts.size(); ++i) {
      prompts[i].ordinal = step * kGroups + i;
      prompts[i].user = static_cast<int32_t>(i);
      prompts[i].history.assign(20, static_cast<int32_t>(i));
      prompts[i].target = static_cast<int32_t>(i);
    }
    const absl::Status status = hub.Issue(step, std::move(prompts));
    SLUICE_CHECK(status.ok(), status.ToString());
  }
  void JudgeAndCommit(uint64_t step) {
    const auto taken = hub.Wait(step, absl::Minutes(1));
    SLUICE_CHECK(taken.ok(), taken.status().ToString());
    learner::JudgeContext context;
    context.learner_version = 1;
    context.catalog_version = job.catalog_version;
    context.levels = 4;
    std::vector<learner::Verdict> verdicts;
    for (const learner::TakenGroup& one : *taken) {
      SLUICE_CHECK(one.group.has_value() && one.group->score_status == ScoreStatus::kOk, one.error);
      const auto plan = learner::Judge({one.prompt.ordinal, &*one.group, dataset->trie().LeafOfItem(one.prompt.target)},
                                       job.options, context);
      SLUICE_CHECK(plan.ok(), plan.status().ToString());
      verdicts.push_back({one.prompt.ordinal, learner::TerminalState::kTrained,
                          std::string(learner::GateReasonName(plan->verdict.reason))});
    }
    SLUICE_CHECK(hub.Commit(step, verdicts).ok(), "the step is committed");
  }

  std::shared_ptr<const Dataset> dataset;
  Metrics metrics;
  learner::HubJob job;
  learner::PolicyStore store;
  learner::RolloutHub hub{{.now = MonotonicClock(), .metrics = &metrics, .snapshots = &store}};
  learner::GrpcRolloutService rollouts{&hub};
  learner::GrpcPolicyService policies{&store};
  std::unique_ptr<RpcServer> server = RpcServer::Start("127.0.0.1:0", {&rollouts, &policies}).value();
};

void Flow(benchmark::State& state) {
  const int actors = static_cast<int>(state.range(0));
  Rank rank;
  clients.Start(absl::StrCat(actors, " 1 ", rank.server->address()));
  rank.WaitForActors(actors);
  constexpr uint64_t kAhead = 3;  // steps open at once, as staleness 2 has them
  uint64_t issued = 0, done = 0;
  for (; issued < kAhead; ++issued) rank.Issue(issued, kGroups);
  for (; done < 4; ++done) {  // warm
    rank.JudgeAndCommit(done);
    rank.Issue(issued++, kGroups);
  }
  const double cpu = CpuSeconds();
  for (auto _ : state) {
    rank.JudgeAndCommit(done++);
    rank.Issue(issued++, kGroups);
  }
  const double groups = static_cast<double>(state.iterations()) * kGroups;
  state.counters["server_cpu_us"] = 1e6 * (CpuSeconds() - cpu) / groups;
  state.SetItemsProcessed(static_cast<int64_t>(groups));
  clients.Stop();
}
BENCHMARK(Flow)->ArgName("actors")->Arg(1)->Arg(4)->Arg(16)->UseRealTime()->Unit(benchmark::kMicrosecond);

void IdleActors(benchmark::State& state) {
  const int actors = static_cast<int>(state.range(0));
  Rank rank;
  clients.Start(absl::StrCat(actors, " 0 ", rank.server->address()));
  rank.WaitForActors(actors);
  std::this_thread::sleep_for(std::chrono::seconds(1));  // the greetings
  double least = 1e9;
  for (auto _ : state) {
    const double cpu = CpuSeconds();
    std::this_thread::sleep_for(std::chrono::seconds(2));
    least = std::min(least, (CpuSeconds() - cpu) / 2);
  }
  state.counters["cpu_percent"] = 100 * least;
  SLUICE_CHECK(rank.hub.num_actors() == actors, "all actors stayed");
  clients.Stop();
}
BENCHMARK(IdleActors)->ArgName("actors")->Arg(400)->Iterations(1)->UseRealTime()->Unit(benchmark::kMillisecond);

// Samples in no time.
class InstantDecoder : public actor::Decoder {
 public:
  explicit InstantDecoder(const std::shared_ptr<const Dataset>& dataset)
      : snapshot_(std::make_shared<Snapshot>(dataset)) {}
  std::shared_ptr<actor::Decoder::Snapshot> Current() const override { return snapshot_; }

 private:
  struct Snapshot : public actor::Decoder::Snapshot {
    explicit Snapshot(std::shared_ptr<const Dataset> of) : dataset(std::move(of)) {
      Random random(6);
      for (int i = 0; i < 8; ++i) scripts.push_back(ScriptedGroup(*dataset, 16, 4, &random));
    }
    uint64_t version() const override { return 1; }
    const Trie& trie() const override { return dataset->trie(); }
    absl::StatusOr<std::vector<Sampled>> Sample(absl::Span<const actor::LeasedPrompt> prompts,
                                                const actor::DecodeSettings&, absl::Span<const uint64_t>) override {
      std::vector<Sampled> sampled(prompts.size());
      for (size_t b = 0; b < prompts.size(); ++b) {
        const ScoredGroup& script = scripts[b % scripts.size()];
        sampled[b].completions = script.completions;
        sampled[b].target = script.completions[0];
      }
      return sampled;
    }
    absl::StatusOr<std::vector<Beams>> Decode(absl::Span<const actor::LeasedPrompt>, const actor::DecodeSettings&, int,
                                              int) override {
      return absl::UnimplementedError("not asked here");
    }
    std::shared_ptr<const Dataset> dataset;
    std::vector<ScoredGroup> scripts;
  };
  std::shared_ptr<Snapshot> snapshot_;
};

class NoWeights : public actor::PolicyLoader {
 public:
  absl::Status SetJob(const std::string&, std::shared_ptr<const Trie>) override { return absl::OkStatus(); }
  absl::StatusOr<absl::Span<char>> Stage(uint64_t bytes) override {
    shadow_.resize(bytes);
    return absl::MakeSpan(shadow_);
  }
  absl::Status Commit(uint64_t) override { return absl::OkStatus(); }
  void EndJob() override {}

 private:
  std::vector<char> shadow_;
};

void LeaseToGroup(benchmark::State& state) {
  Rank rank;
  const NowFunction now = MonotonicClock();
  reward::RankerSet rankers;
  rankers.Add(std::make_unique<reward::CooccurrenceRanker>(rank.dataset));
  reward::BatcherOptions batching;
  batching.max_delay = absl::ZeroDuration();
  Metrics reward_metrics;
  reward::Batcher batcher(batching, now, &reward_metrics);
  reward::RewardServiceImpl rewards(&rankers, rank.dataset->trie().version(), &batcher, now, &reward_metrics);
  const auto reward_server = RpcServer::Start("127.0.0.1:0", {&rewards}).value();
  Thread scoring = StartThread("batch", [&] { batcher.Run(); });

  InstantDecoder decoder(rank.dataset);
  actor::GrpcRewardClient reward_client(MakeChannel(reward_server->address()), now);
  actor::RolloutWorker worker(&decoder, &reward_client,
                              {.backoff = {}, .now = now, .wait = [](absl::Duration) { return false; }});
  NoWeights loader;
  actor::ActorClientOptions options;
  options.actor_id = "actor";
  options.learner = rank.server->address();
  options.now = now;
  actor::ActorClient client(options, &loader, [&](const actor::JobContext& job, const actor::LeaseBlock& block) {
    return worker.Execute(job, block);
  });
  Thread runner = StartThread("actor", [&] { client.Run().IgnoreError(); });
  uint64_t step = 0;
  rank.Issue(step, rank.job.options.lease_groups);  // the first waits for weights and catalog
  rank.JudgeAndCommit(step++);

  std::vector<double> milliseconds;
  for (auto _ : state) {
    const absl::Time begin = now();
    rank.Issue(step, rank.job.options.lease_groups);
    const auto taken = rank.hub.Wait(step, absl::Minutes(1));
    milliseconds.push_back(absl::ToDoubleMilliseconds(now() - begin));
    SLUICE_CHECK(taken.ok(), taken.status().ToString());
    std::vector<learner::Verdict> verdicts;
    for (const learner::TakenGroup& one : *taken) {
      SLUICE_CHECK(one.group.has_value() && one.group->score_status == ScoreStatus::kOk, one.error);
      verdicts.push_back({one.prompt.ordinal, learner::TerminalState::kTrained, "open"});
    }
    SLUICE_CHECK(rank.hub.Commit(step++, verdicts).ok(), "the step is committed");
  }
  std::sort(milliseconds.begin(), milliseconds.end());
  state.counters["p50_ms"] = milliseconds[milliseconds.size() / 2];
  state.counters["p99_ms"] = milliseconds[milliseconds.size() * 99 / 100];
  client.Drain("the benchmark is over");
  runner.Join();
  reward_server->Shutdown(absl::ZeroDuration());
  batcher.Close();
}
BENCHMARK(LeaseToGroup)->Iterations(2000)->UseRealTime()->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace sluice
