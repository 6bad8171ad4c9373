// sluice-reward: scores groups with the rankers of a prepared data set. Wiring only.
#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/catalog/dataset.h"
#include "common/failpoint/failpoint.h"
#include "common/log/log.h"
#include "common/metrics/metrics.h"
#include "common/rpc/security_flags.h"
#include "common/rpc/server.h"
#include "common/service_manager/service_manager.h"
#include "common/signal/stop_signals.h"
#include "common/status/exit_code.h"
#include "common/status/status.h"
#include "common/sync/notification.h"
#include "common/sync/thread.h"
#include "common/time/retry.h"
#include "reward_server/batch/batcher.h"
#include "reward_server/mapped_rankers.h"
#include "reward_server/ranker/score_groups.h"
#include "reward_server/ranker_mapping/mapped_ranker.h"
#include "reward_server/ranker_torch/load_rankers.h"
#include "reward_server/rpc/reward_service.h"

namespace sluice::reward {
namespace {

struct Flags {
  std::string data;
  std::string address = "127.0.0.1:7080";
  std::string metrics_address;
  std::string log_format = "text";
  std::vector<std::string> rankers;
  bool check = false;
  double check_every_s = 30;
  int64_t max_queue = BatcherOptions().max_queued_groups;
  int64_t max_batch_candidates = BatcherOptions().max_batch_candidates;
  double max_delay_ms = absl::ToDoubleMilliseconds(BatcherOptions().max_delay);
  int threads = 1;
  SecurityFlags security;
};

// How long calls in progress may take once the process is to stop. Idle clients do not notice the farewell at once, and
// the server waits for them too, so this is about how long stopping takes.
constexpr absl::Duration kStopGrace = absl::Seconds(1);
constexpr char kServing[] = "serving";

// A ranker that cannot score the first item after itself is broken: better not ready than wrong.
absl::Status Warm(const RankerSet& rankers) {
  GroupToScore group;
  group.user = 0;
  group.history = {0};
  group.candidates = {{0}};
  for (const Ranker* ranker : rankers.all()) {
    const GroupResult result = ScoreGroups(*ranker, {&group})[0];
    if (result.status != GroupStatus::kOk) {
      return absl::DataLossError(
          absl::StrCat("ranker ", ranker->name(), " does not score: ", result.error, "; prepare the data set again"));
    }
    LogInfo("ranker ready", {{"ranker", ranker->name()}, {"version", ranker->version()}});
  }
  return absl::OkStatus();
}

// Between the parts of a start, each of which may take seconds.
absl::Status NotAskedToStop() {
  return TakeStopSignal() == 0 ? absl::OkStatus() : absl::CancelledError("a signal asked for it");
}

// Has the models outside of this program score their golden groups from time to time, until `stop`. The server is ready
// while all of them do: a balancer then sends nobody here. What does not agree any more scores nothing (MappedRanker).
void KeepChecking(const std::vector<const MappedRanker*>& rankers, absl::Duration every, const Notification& stop,
                  RpcServer* server, ServiceManager* manager) {
  std::map<const MappedRanker*, absl::Status> last;
  while (!stop.WaitFor(every)) {
    bool all = true;
    for (const MappedRanker* ranker : rankers) {
      const absl::Status status = ranker->Check();
      absl::Status& before = last[ranker];
      if (!status.ok() && before.ok()) {
        LogWarning("ranker not ready", {{"ranker", ranker->name()}, {"error", status.message()}});
      } else if (status.ok() && !before.ok()) {
        LogInfo("ranker ready again", {{"ranker", ranker->name()}});
      }
      before = status;
      all = all && status.ok();
    }
    if (stop.HasBeenNotified()) return;
    server->SetServing(all);
    manager->SetStatus(all ? kServing : "not serving: a model outside does not score its golden groups");
  }
}

// Until SIGTERM or SIGINT. Cancelled if one came before there was anything to serve.
absl::Status Serve(const Flags& flags, ServiceManager* manager) {
  SLUICE_RETURN_IF_ERROR(StartFailpoints());
  BatcherOptions options;
  options.max_queued_groups = flags.max_queue;
  options.max_batch_candidates = flags.max_batch_candidates;
  options.max_delay = absl::Milliseconds(flags.max_delay_ms);
  SLUICE_RETURN_IF_ERROR(options.Validate());

  SLUICE_ASSIGN_OR_RETURN(const ServerSecurity security, LoadServerSecurity(flags.security, {Role::kReward}));
  Metrics metrics;
  security.credentials->AddMetrics(&metrics);
  if (!flags.metrics_address.empty()) {
    SLUICE_ASSIGN_OR_RETURN(const int port, metrics.Serve(flags.metrics_address));
    LogInfo("metrics served", {{"address", flags.metrics_address}, {"port", port}});
  }
  SLUICE_RETURN_IF_ERROR(NotAskedToStop());
  SLUICE_ASSIGN_OR_RETURN(const std::shared_ptr<const Dataset> dataset, Dataset::Load(flags.data));
  SLUICE_RETURN_IF_ERROR(NotAskedToStop());
  SLUICE_ASSIGN_OR_RETURN(RankerSet rankers, LoadRankers(dataset));
  SLUICE_RETURN_IF_ERROR(NotAskedToStop());
  SLUICE_RETURN_IF_ERROR(Warm(rankers));
  // Models outside may take their time to get ready, and who stops this process need not wait for them.
  const WaitFunction wait_for_start = [](absl::Duration time) { return TakeStopSignal(time) == 0; };
  SLUICE_ASSIGN_OR_RETURN(const std::vector<const MappedRanker*> mapped,
                          AddMappedRankers(flags.rankers, dataset, wait_for_start, &rankers));
  if (flags.check) return absl::OkStatus();

  const NowFunction now = MonotonicClock();
  Batcher batcher(options, now, &metrics);
  RewardServiceImpl service(&rankers, dataset->trie().version(), &batcher, now, &metrics);
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<RpcServer> server,
                          RpcServer::Start(flags.address, {&service}, security));
  std::vector<Thread> workers;
  for (int i = 0; i < flags.threads; ++i) workers.push_back(StartThread("batch", [&batcher] { batcher.Run(); }));
  Notification stop;
  Thread checker;
  if (!mapped.empty()) {
    checker = StartThread(
        "check", [&] { KeepChecking(mapped, absl::Seconds(flags.check_every_s), stop, server.get(), manager); });
  }
  LogInfo("serving", {{"address", server->address()},
                      {"data", flags.data},
                      {"catalog_version", dataset->trie().version()},
                      {"items", dataset->num_items()}});
  manager->Ready(kServing);

  int signal = 0;
  while (signal == 0) signal = TakeStopSignal(absl::Minutes(1));
  LogInfo("stopping", {{"signal", signal}});
  manager->Stopping("answering the calls in progress");
  stop.Notify();
  server->SetServing(false);
  server->Shutdown(kStopGrace);  // calls in progress still get their answer
  batcher.Close();
  workers.clear();  // joins
  checker.Join();
  LogInfo("stopped");
  return absl::OkStatus();
}

}  // namespace
}  // namespace sluice::reward

int main(int argc, char** argv) {
  sluice::reward::Flags flags;
  CLI::App app("The reward server of Sluice: scores (user, item) pairs with the rankers of a prepared data set.");
  app.add_option("--data", flags.data, "Folder of a prepared data set")->required();
  app.add_option("--address", flags.address, "host:port to serve at; port 0 picks one")->capture_default_str();
  app.add_option("--metrics-address", flags.metrics_address, "host:port of /metrics; default: none");
  app.add_option("--log-format", flags.log_format, "text or json")
      ->capture_default_str()
      ->check(CLI::IsMember({"text", "json"}));
  app.add_option("--max-queue", flags.max_queue, "Groups waiting at most; past it calls are refused with a hint")
      ->capture_default_str();
  app.add_option("--max-batch-candidates", flags.max_batch_candidates, "Candidates scored together at most")
      ->capture_default_str();
  app.add_option("--max-delay-ms", flags.max_delay_ms, "How long a group waits for others, milliseconds")
      ->capture_default_str();
  app.add_option("--threads", flags.threads, "Batches computed at the same time, each on one thread")
      ->capture_default_str()
      ->check(CLI::Range(1, 256));
  app.add_option("--ranker", flags.rankers, "Mapping file of a model outside, which becomes a ranker; may be repeated")
      ->allow_extra_args(false);
  app.add_option("--check-every", flags.check_every_s,
                 "Seconds between two checks of such models by their golden groups")
      ->capture_default_str()
      ->check(CLI::Range(0.05, 86400.0));
  app.add_flag("--check", flags.check, "Load and check every ranker, print their versions, and end");
  sluice::AddTlsFlags(&app, &flags.security);
  sluice::AddServerSecurityFlags(&app, &flags.security);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);
    return code == 0 ? 0 : static_cast<int>(sluice::ExitCode::kUsage);
  }
  sluice::InitLogging("reward", flags.log_format == "json" ? sluice::LogFormat::kJson : sluice::LogFormat::kText,
                      sluice::LogLevel::kInfo);

  at::set_num_threads(1);

  sluice::ServiceManager manager(sluice::TakeNotifySocket());
  const absl::Status status = sluice::reward::Serve(flags, &manager);
  if (absl::IsCancelled(status) && !flags.check) {
    sluice::LogInfo("stopped while starting", {{"reason", status.message()}});
    return 0;
  }
  if (!status.ok()) {
    const absl::string_view message = status.message();
    std::fprintf(stderr, "sluice-reward: %.*s\n", static_cast<int>(message.size()), message.data());
  }
  return static_cast<int>(sluice::ExitCodeFor(status));
}
