// One version to many actors: real hub, services and actor clients over gRPC on loopback, in one process; sampling and
// policies are left out. From Publish until the last actor has swapped it in.
//
// Arguments: actors; branching (0: the rank sends to all); KiB of weights. Counters, a version: seconds, copies that
// the rank sent, copies that actors sent to one another, transfers that fell back to the rank. On one machine the link
// is the memory and everybody shares the cores, so a tree saves the rank's sending here and no time: what it brings
// where each actor has a link of its own is the simulator's to say (docs/scale.md).
#include <benchmark/benchmark.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "actor/rpc/actor_client.h"
#include "actor/rpc/peer_policies.h"
#include "common/metrics/metrics.h"
#include "common/rpc/server.h"
#include "common/status/status.h"
#include "common/sync/mutex.h"
#include "common/sync/thread.h"
#include "common/time/clock.h"
#include "common/transfer/catalog_document.h"
#include "learner/ledger/rollout_hub.h"
#include "learner/publish/policy_store.h"
#include "learner/rpc/policy_service.h"
#include "learner/rpc/rollout_service.h"

namespace sluice {
namespace {

// Counts who has swapped in what.
class Arrivals {
 public:
  void Note(uint64_t version) {
    MutexLock lock(&mutex_);
    if (version == version_) ++arrived_;
    changed_.NotifyAll();
  }
  void Expect(uint64_t version) {
    MutexLock lock(&mutex_);
    version_ = version;
    arrived_ = 0;
  }
  void Await(int actors) {
    MutexLock lock(&mutex_);
    while (arrived_ < actors) changed_.Wait(&mutex_);
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  uint64_t version_ ABSL_GUARDED_BY(mutex_) = 0;
  int arrived_ ABSL_GUARDED_BY(mutex_) = 0;
};

// Two copies of the weights that are filled in turn, as the policy's decoder has them.
class Receiver : public actor::PolicyLoader {
 public:
  Receiver(const std::string& id, const std::string& rank, Arrivals* arrivals)
      : arrivals_(arrivals), peer_server_(RpcServer::Start("127.0.0.1:0", {&peers_}).value()) {
    actor::ActorClientOptions options;
    options.actor_id = id;
    options.learner = rank;
    options.has_rewards = false;
    options.now = MonotonicClock();
    options.metrics = &metrics_;
    options.peers = &peers_;
    options.peer_address = peer_server_->address();
    client_ =
        std::make_unique<actor::ActorClient>(options, this, [](const actor::JobContext&, const actor::LeaseBlock&) {
          return absl::StatusOr<std::vector<actor::PromptOutcome>>(absl::UnimplementedError("nobody samples here"));
        });
    runner_ = StartThread("actor", [this] { SLUICE_CHECK(client_->Run().ok(), "the actor leaves when told to"); });
  }
  ~Receiver() override {
    client_->Drain("the benchmark is over");
    runner_.Join();
    peer_server_->Shutdown(absl::ZeroDuration());
  }

  absl::Status SetJob(const std::string&, std::shared_ptr<const Trie>) override { return absl::OkStatus(); }
  absl::StatusOr<absl::Span<char>> Stage(uint64_t bytes) override {
    if (shadow_ == nullptr || shadow_.use_count() > 1) shadow_ = std::make_shared<std::string>();
    shadow_->resize(bytes);
    return absl::MakeSpan(shadow_->data(), bytes);
  }
  absl::Status Commit(uint64_t version) override {
    std::swap(active_, shadow_);
    arrivals_->Note(version);
    return absl::OkStatus();
  }
  void EndJob() override {}
  actor::HeldWeights Active() override { return {active_, *active_}; }

  double BytesSent() {
    const std::string text = metrics_.Text();
    const std::string name = "\nsluice_peer_weight_bytes_total ";
    const size_t at = text.find(name);
    return at == std::string::npos ? 0 : std::stod(text.substr(at + name.size()));
  }

 private:
  Arrivals* const arrivals_;
  Metrics metrics_;
  actor::PeerPolicies peers_{{.metrics = &metrics_}};
  std::unique_ptr<RpcServer> peer_server_;
  std::shared_ptr<std::string> shadow_, active_;
  std::unique_ptr<actor::ActorClient> client_;
  Thread runner_;
};

double Value(Metrics& metrics, const std::string& series) {
  const std::string text = metrics.Text();
  const size_t at = text.find(absl::StrCat("\n", series, " "));
  return at == std::string::npos ? 0 : std::stod(text.substr(at + series.size() + 2));
}

void FanOut(benchmark::State& state) {
  const int actors = static_cast<int>(state.range(0));
  const std::vector<float> arena(static_cast<size_t>(state.range(2)) * 1024 / sizeof(float), 0.5f);
  const double payload = static_cast<double>(arena.size() * sizeof(float));
  const Trie trie = Trie::Build(2, {3, 5, 4, 5}).value();
  Metrics metrics;
  learner::PolicyStore store;
  learner::RolloutHub hub({.now = MonotonicClock(),
                           .metrics = &metrics,
                           .snapshots = &store,
                           .actor_timeout = absl::Minutes(10),
                           .publication = {.branching = static_cast<int>(state.range(1))}});
  learner::GrpcRolloutService rollouts(&hub);
  learner::GrpcPolicyService policies(&store, {.metrics = &metrics});
  const auto server = RpcServer::Start("127.0.0.1:0", {&rollouts, &policies}).value();
  learner::HubJob job;
  job.job_id = "job";
  job.model_config_json = "{}";
  job.catalog_version = trie.version();
  job.levels = 2;
  job.groups_per_step = 1;
  job.options.objective = learner::ObjectiveKind::kNllOnly;
  store.PutCatalog("job", trie);
  SLUICE_CHECK(hub.StartJob(job).ok(), "the job opens");

  Arrivals arrivals;
  std::vector<std::unique_ptr<Receiver>> receivers;
  for (int i = 0; i < actors; ++i) {
    receivers.push_back(std::make_unique<Receiver>(absl::StrCat("actor-", i), server->address(), &arrivals));
  }
  learner::SnapshotEncoder encoder;
  uint64_t version = 0;
  const auto publish = [&] {
    arrivals.Expect(++version);
    hub.Publish(encoder.Encode(version, arena));
    arrivals.Await(actors);
  };
  publish();  // who comes late is there after this, and memory is taken
  publish();
  const auto sent = [&] {
    double bytes = 0;
    for (const auto& receiver : receivers) bytes += receiver->BytesSent();
    return bytes;
  };
  const double rank_before = Value(metrics, "sluice_weight_bytes_total"), peers_before = sent();
  for (auto _ : state) publish();
  const double versions = static_cast<double>(state.iterations());
  state.counters["rank_copies"] = (Value(metrics, "sluice_weight_bytes_total") - rank_before) / payload / versions;
  state.counters["peer_copies"] = (sent() - peers_before) / payload / versions;
  double fallbacks = 0;
  for (const char* reason : {"no_peer", "late", "peer_failed"}) {
    fallbacks += Value(metrics, absl::StrCat("sluice_publish_fallbacks_total{reason=\"", reason, "\"}"));
  }
  state.counters["fallbacks"] = fallbacks;
  receivers.clear();
  hub.DisconnectActors(absl::UnavailableError("the benchmark is over"));
  server->Shutdown(absl::ZeroDuration());
}
BENCHMARK(FanOut)
    ->ArgNames({"actors", "branching", "KiB"})
    ->ArgsProduct({{4, 8, 16}, {0, 2, 4}, {20 << 10}})
    ->Iterations(10)
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace sluice
