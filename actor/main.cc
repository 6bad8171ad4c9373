// sluice-actor: samples groups for a learner rank and has them scored. Wiring only.
#include <ATen/Parallel.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <memory>
#include <random>
#include <string>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "actor/journal/journal.h"
#include "actor/rollout/rollout_worker.h"
#include "actor/rpc/actor_client.h"
#include "actor/rpc/grpc_reward_client.h"
#include "actor/rpc/peer_policies.h"
#include "actor/sampling/policy_decoder.h"
#include "common/collective/backend.h"
#include "common/collective/weight_group.h"
#include "common/failpoint/failpoint.h"
#include "common/log/log.h"
#include "common/metrics/metrics.h"
#include "common/rpc/channel.h"
#include "common/rpc/security_flags.h"
#include "common/rpc/server.h"
#include "common/service_manager/service_manager.h"
#include "common/signal/stop_signals.h"
#include "common/status/exit_code.h"
#include "common/status/status.h"
#include "common/sync/thread.h"
#include "common/tensor/device.h"

namespace sluice::actor {
namespace {

constexpr char kVersion[] = "0.1.0";
constexpr char kAttached[] = "attached to a learner rank";
constexpr char kNotAttached[] = "looking for a learner rank";
// What ending takes beyond the time for the lease in hand.
constexpr absl::Duration kStopMargin = absl::Seconds(20);

struct Flags {
  std::string coordinator;
  std::string learner;
  std::string reward;
  std::string actor_id;
  std::string address = "127.0.0.1:0";
  std::string peer_address;
  std::string metrics_address;
  std::string log_format = "text";
  int threads = 1;
  std::string device = "cpu";
  std::string precision = "fp32";
  std::string weights = "auto";
  std::string collective_host = "127.0.0.1";
  double drain_timeout_s = 25;
  std::string journal;
  SecurityFlags security;
};

// host-pid-random: unique among living actors, also where every container has the same process id.
std::string DefaultActorId() {
  char host[256] = {};
  gethostname(host, sizeof(host) - 1);
  return absl::StrCat(host, "-", getpid(), "-", absl::Hex(std::random_device()(), absl::kZeroPad8));
}

absl::Status Validate(const Flags& flags) {
  if (flags.coordinator.empty() == flags.learner.empty()) {
    return absl::InvalidArgumentError("want one of --coordinator HOST:PORT and --learner HOST:PORT");
  }
  if (!flags.coordinator.empty()) SLUICE_RETURN_IF_ERROR(CheckAddress("--coordinator", flags.coordinator));
  if (!flags.learner.empty()) SLUICE_RETURN_IF_ERROR(CheckAddress("--learner", flags.learner));
  if (!flags.reward.empty()) SLUICE_RETURN_IF_ERROR(CheckAddress("--reward", flags.reward));
  return absl::OkStatus();
}

// What is sure to fail with these certificates fails now, and not at every try.
absl::Status CheckServers(const Flags& flags, const Credentials& credentials) {
  if (!flags.coordinator.empty()) {
    SLUICE_RETURN_IF_ERROR(credentials.CheckServer(flags.coordinator, {Role::kCoordinator}));
  }
  if (!flags.learner.empty()) SLUICE_RETURN_IF_ERROR(credentials.CheckServer(flags.learner, {Role::kRank}));
  if (!flags.reward.empty()) SLUICE_RETURN_IF_ERROR(credentials.CheckServer(flags.reward, {Role::kReward}));
  return absl::OkStatus();
}

// Joins the client to the policy that samples.
class DecoderLoader : public PolicyLoader {
 public:
  explicit DecoderLoader(PolicyDecoder* decoder) : decoder_(decoder) {}
  absl::Status SetJob(const std::string& model_config_json, std::shared_ptr<const Trie> trie) override {
    return decoder_->SetJob(model_config_json, std::move(trie));
  }
  absl::StatusOr<absl::Span<char>> Stage(uint64_t bytes) override { return decoder_->Stage(bytes); }
  absl::Status Commit(uint64_t version) override { return decoder_->Commit(version); }
  void EndJob() override { decoder_->EndJob(); }
  HeldWeights Active() override {
    PolicyDecoder::Weights weights = decoder_->ActiveWeights();
    return {std::move(weights.owner), weights.bytes};
  }

 private:
  PolicyDecoder* const decoder_;
};

// Joins the client to the weight group.
class GroupReceiver : public WeightReceiver {
 public:
  GroupReceiver(FormGroup form, std::shared_ptr<KvStore> store) : group_(std::move(form), std::move(store)) {}
  absl::Status Receive(const GroupPlace& place, absl::Span<char> bytes, uint64_t chunk_bytes,
                       absl::Duration timeout) override {
    return group_.Broadcast(place, bytes, chunk_bytes, timeout);
  }
  void Abort(uint64_t epoch) override { group_.Abort(epoch); }

 private:
  WeightGroup group_;
};

absl::StatusOr<std::unique_ptr<Journal>> OpenJournal(const std::string& folder, const std::string& actor_id,
                                                     const NowFunction& now) {
  JournalOptions options;
  options.folder = folder;
  options.actor_id = actor_id;
  options.wall = WallClock();
  options.now = now;
  return Journal::Open(options);
}

// Until SIGTERM or SIGINT, or a final error.
absl::Status Work(const Flags& flags, ServiceManager* manager) {
  SLUICE_RETURN_IF_ERROR(StartFailpoints());
  SLUICE_RETURN_IF_ERROR(Validate(flags));
  SLUICE_ASSIGN_OR_RETURN(const Placement placement, OpenPlacement(flags.device, flags.precision));
  SLUICE_ASSIGN_OR_RETURN(const ServerSecurity security, LoadServerSecurity(flags.security, {Role::kActor}));
  SLUICE_ASSIGN_OR_RETURN(
      const WeightBackend weights,
      OpenWeightBackend(flags.weights, placement.device, security.credentials->has_tls(), flags.collective_host));
  SLUICE_RETURN_IF_ERROR(CheckServers(flags, *security.credentials));
  Metrics metrics;
  security.credentials->AddMetrics(&metrics);
  if (!flags.metrics_address.empty()) {
    SLUICE_ASSIGN_OR_RETURN(const int port, metrics.Serve(flags.metrics_address));
    LogInfo("metrics served", {{"address", flags.metrics_address}, {"port", port}});
  }
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<RpcServer> server, RpcServer::Start(flags.address, {}, security));
  server->SetServing(false);

  const NowFunction now = MonotonicClock();
  PolicyDecoder decoder(placement);
  DecoderLoader loader(&decoder);
  std::unique_ptr<GrpcRewardClient> rewards;
  Blocked on_scores(&metrics, now, "actor", "scores"), on_lease(&metrics, now, "actor", "lease");
  if (!flags.reward.empty()) {
    SLUICE_ASSIGN_OR_RETURN(std::shared_ptr<grpc::Channel> channel,
                            MakeChannel(flags.reward, security.credentials, {Role::kReward}));
    rewards = std::make_unique<GrpcRewardClient>(std::move(channel), now, &on_scores);
  }

  ActorClientOptions options;
  options.actor_id = flags.actor_id.empty() ? DefaultActorId() : flags.actor_id;
  options.software_version = kVersion;
  options.coordinator = flags.coordinator;
  options.learner = flags.learner;
  options.credentials = security.credentials;
  options.has_rewards = rewards != nullptr;
  options.drain_timeout = absl::Seconds(flags.drain_timeout_s);
  options.now = now;
  options.metrics = &metrics;
  options.on_lease = &on_lease;
  options.on_give_up = [&rewards] {
    if (rewards != nullptr) rewards->Cancel();
  };
  PeerPolicies peers({.metrics = &metrics});
  std::unique_ptr<RpcServer> peer_server;
  if (!flags.peer_address.empty()) {
    SLUICE_ASSIGN_OR_RETURN(peer_server, RpcServer::Start(flags.peer_address, {&peers}, security));
    options.peers = &peers;
    options.peer_address = peer_server->address();
  }
  options.weight_group = weights.name;
  if (weights.form != nullptr) {
    options.make_receiver = [&weights](std::shared_ptr<KvStore> store) {
      return std::make_shared<GroupReceiver>(weights.form, std::move(store));
    };
  }
  manager->SetStatus(kNotAttached);
  options.on_attached = [&server, manager](bool attached) {
    server->SetServing(attached);
    if (attached) {
      manager->Ready(kAttached);
    } else {
      manager->SetStatus(kNotAttached);
    }
  };

  std::unique_ptr<Journal> journal;
  Thread journal_writer;
  if (!flags.journal.empty()) {
    SLUICE_ASSIGN_OR_RETURN(journal, OpenJournal(flags.journal, options.actor_id, now));
    journal_writer = StartThread("actor-journal", [&journal] { journal->Run(); });
  }
  const absl::Cleanup close_journal = [&] {
    if (journal != nullptr) journal->Close();
    journal_writer.Join();
  };
  options.journal = journal.get();

  ActorClient* waiter = nullptr;  // set before any block is executed
  RolloutWorker::Options worker_options;
  worker_options.now = now;
  worker_options.wait = [&waiter](absl::Duration delay) { return waiter->WaitUnlessGivenUp(delay); };
  if (journal != nullptr) {
    worker_options.on_sampled = [&journal](const LeaseBlock& block, uint64_t version) {
      journal->Sampled(block, version);
    };
  }
  RolloutWorker worker(&decoder, rewards.get(), worker_options);
  ActorClient client(options, &loader,
                     [&worker](const JobContext& job, const LeaseBlock& block) { return worker.Execute(job, block); });
  waiter = &client;
  LogInfo("starting", {{"actor", options.actor_id},
                       {"address", server->address()},
                       {"peer_address", options.peer_address},
                       {"threads", flags.threads},
                       {"device", flags.device},
                       {"precision", flags.precision},
                       {"weights", weights.name.empty() ? "grpc" : weights.name}});

  absl::Status result;
  Notification done;
  Thread runner = StartThread("actor-read", [&] {
    result = client.Run();
    done.Notify();
  });
  while (!done.HasBeenNotified()) {
    const int signal = TakeStopSignal(absl::Milliseconds(200));
    if (signal <= 0) continue;
    manager->Stopping("draining: the lease in hand is finished or given back", options.drain_timeout + kStopMargin);
    client.Drain(signal == SIGTERM ? "SIGTERM" : "SIGINT");
  }
  runner.Join();
  if (peer_server != nullptr) peer_server->Shutdown(absl::ZeroDuration());
  server->Shutdown(absl::ZeroDuration());
  LogInfo("stopped");
  return result;
}

}  // namespace
}  // namespace sluice::actor

int main(int argc, char** argv) {
  sluice::actor::Flags flags;
  CLI::App app(
      "An actor of Sluice: samples groups for a learner rank under the latest published policy, and has them scored.");
  app.add_option("--coordinator", flags.coordinator, "host:port of the coordinator, which says which rank to work for");
  app.add_option("--learner", flags.learner, "host:port of one learner rank, instead of --coordinator");
  app.add_option("--reward", flags.reward, "host:port of the reward server; without it only jobs without scores");
  app.add_option("--actor-id", flags.actor_id, "Name, unique among living actors; default: host, process and chance");
  app.add_option("--threads", flags.threads, "Threads that compute; in synchronous jobs all actors need the same")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  app.add_option("--device", flags.device, sluice::kDeviceHelp)->capture_default_str();
  app.add_option("--precision", flags.precision, sluice::kPrecisionHelp)->capture_default_str();
  app.add_option("--weights", flags.weights, sluice::kWeightsHelp)->capture_default_str();
  app.add_option("--collective-host", flags.collective_host,
                 "Address of this host that the rank and other actors reach, for --weights gloo; NCCL goes by "
                 "NCCL_SOCKET_IFNAME")
      ->capture_default_str();
  app.add_option("--address", flags.address, "host:port of health checks and reflection; port 0 picks one")
      ->capture_default_str();
  app.add_option(
      "--peer-address", flags.peer_address,
      "host:port where this actor sends the weights that it holds on to other actors, as they reach it; port 0 "
      "picks one; default: it does not");
  app.add_option("--metrics-address", flags.metrics_address, "host:port of /metrics; default: none");
  app.add_option("--drain-timeout", flags.drain_timeout_s,
                 "Seconds after SIGTERM in which the lease in hand is finished; then it is given back")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 86400.0));
  app.add_option(
      "--journal", flags.journal,
      "Folder of this actor alone for its journal: what it leased, sampled, sent, and the answers; default: none");
  sluice::AddTlsFlags(&app, &flags.security);
  sluice::AddServerSecurityFlags(&app, &flags.security);
  app.add_option("--log-format", flags.log_format, "text or json")
      ->capture_default_str()
      ->check(CLI::IsMember({"text", "json"}));
  app.set_version_flag("--version", sluice::actor::kVersion);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);
    return code == 0 ? 0 : static_cast<int>(sluice::ExitCode::kUsage);
  }
  sluice::InitLogging("actor", flags.log_format == "json" ? sluice::LogFormat::kJson : sluice::LogFormat::kText,
                      sluice::LogLevel::kInfo);

  if (sluice::TakeStopSignal() != 0) {
    sluice::LogInfo("stopped while starting");
    return 0;
  }
  at::set_num_threads(flags.threads);
  // A write beyond the limit on a file's size is an error like a full disk, not a death by signal.
  std::signal(SIGXFSZ, SIG_IGN);

  sluice::ServiceManager manager(sluice::TakeNotifySocket());
  const absl::Status status = sluice::actor::Work(flags, &manager);
  if (!status.ok()) {
    const absl::string_view message = status.message();
    std::fprintf(stderr, "sluice-actor: %.*s\n", static_cast<int>(message.size()), message.data());
  }
  return static_cast<int>(sluice::ExitCodeFor(status));
}
