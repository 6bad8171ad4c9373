// sluice-learner: coordinator, rank, or one job by itself. Wiring only.

#include <CLI/CLI.hpp>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include "common/collective/backend.h"
#include "common/failpoint/failpoint.h"
#include "common/log/log.h"
#include "common/rpc/security_flags.h"
#include "common/service_manager/service_manager.h"
#include "common/signal/stop_signals.h"
#include "common/status/exit_code.h"
#include "common/tensor/device.h"
#include "learner/compare_command.h"
#include "learner/coordinator_command.h"
#include "learner/rank_command.h"
#include "learner/replay_command.h"
#include "learner/report_command.h"
#include "learner/run/run_context.h"
#include "learner/run_command.h"
#include "learner/trace_command.h"

namespace {

constexpr int kGoOn = static_cast<int>(sluice::learner::StopRequest::kNone);
// Read by the job between steps; written by the signal handler alone.
std::atomic<int> stop_request{kGoOn};

void OnSignal(int) { stop_request = static_cast<int>(sluice::learner::StopRequest::kPreempt); }

int Report(const absl::Status& status) {
  if (!status.ok()) {
    const absl::string_view message = status.message();
    std::fprintf(stderr, "sluice-learner: %.*s\n", static_cast<int>(message.size()), message.data());
  }
  return static_cast<int>(sluice::ExitCodeFor(status));
}

}  // namespace

int main(int argc, char** argv) {
  sluice::HandleStopSignals(OnSignal);
  CLI::App app("The learner of Sluice: trains policies. `sluicectl` submits jobs to it.");
  app.require_subcommand(1);
  std::string log_format = "text";
  app.add_option("--log-format", log_format, "text or json")->check(CLI::IsMember({"text", "json"}));

  sluice::SecurityFlags security;  // of the one command that is given
  const auto add_security = [&security](CLI::App* command) {
    sluice::AddTlsFlags(command, &security);
    sluice::AddServerSecurityFlags(command, &security);
  };

  sluice::learner::RunFlags run;
  CLI::App* run_command = app.add_subcommand("run", "Run one job in this process, then exit with its outcome.");
  run_command->add_option("spec", run.spec_path, "The job spec, YAML")->required();
  run_command->add_option("--set", run.overrides, "Override a key of the spec: --set rl.steps=50");
  run_command->add_option("--runs", run.runs_folder, "Folder of run folders")->capture_default_str();
  run_command->add_option("--run-folder", run.run_folder, "This run's folder; default: made from name and spec");
  run_command->add_option(
      "--address", run.address,
      "host:port where actors attach; rl: 127.0.0.1:7090 by default, evaluate: none, it decodes alone");
  run_command->add_option("--weights", run.weights, sluice::kWeightsHelp)->capture_default_str();
  run_command
      ->add_option("--collective-host", run.collective_host,
                   "Address that the actors reach, for --weights gloo; NCCL goes by NCCL_SOCKET_IFNAME")
      ->capture_default_str();
  run_command->add_option("--metrics-address", run.metrics_address, "host:port of /metrics; default: none");
  run_command->add_option("--threads", run.threads, "Compute threads")
      ->capture_default_str()
      ->check(CLI::Range(1, 256));
  run_command->add_option("--device", run.device, sluice::kDeviceHelp)->capture_default_str();
  run_command->add_option("--precision", run.precision, sluice::kPrecisionHelp)->capture_default_str();
  add_security(run_command);

  sluice::learner::RankFlags rank;
  bool with_coordinator = false;
  CLI::App* rank_command = app.add_subcommand("rank", "A resident member of the learner group.");
  rank_command->add_option("--coordinator", rank.coordinator, "host:port of the coordinator")->capture_default_str();
  rank_command->add_option("--address", rank.address, "host:port where actors attach; port 0 picks one")
      ->capture_default_str();
  rank_command
      ->add_option("--collective-host", rank.collective_host,
                   "Address that the other ranks and the actors reach, for Gloo; NCCL goes by NCCL_SOCKET_IFNAME")
      ->capture_default_str();
  rank_command->add_option("--collective", rank.collective, sluice::kCollectiveHelp)->capture_default_str();
  rank_command->add_option("--weights", rank.weights, sluice::kWeightsHelp)->capture_default_str();
  rank_command->add_option("--metrics-address", rank.metrics_address, "host:port of /metrics; default: none");
  rank_command->add_option("--threads", rank.threads, "Compute threads")
      ->capture_default_str()
      ->check(CLI::Range(1, 256));
  rank_command->add_option("--device", rank.device, sluice::kDeviceHelp)->capture_default_str();
  rank_command->add_option("--precision", rank.precision, sluice::kPrecisionHelp)->capture_default_str();
  add_security(rank_command);
  rank_command->add_flag("--with-coordinator", with_coordinator,
                         "Also be the coordinator, at --coordinator's address, with its flags at their defaults");

  sluice::learner::CoordinatorFlags coordinator;
  CLI::App* coordinator_command =
      app.add_subcommand("coordinator", "The one coordinator: job API, job store, membership. No tensors.");
  coordinator_command
      ->add_option("--address", coordinator.address, "host:port of the job and membership API; port 0 picks one")
      ->capture_default_str();
  coordinator_command->add_option("--metrics-address", coordinator.metrics_address,
                                  "host:port of /metrics; default: none");
  coordinator_command->add_option("--heartbeat-seconds", coordinator.heartbeat_s, "How often ranks say that they live")
      ->capture_default_str();
  coordinator_command->add_option("--lease-seconds", coordinator.lease_s, "A rank silent for this long is out")
      ->capture_default_str();
  coordinator_command
      ->add_option("--drain-seconds", coordinator.drain_s, "On SIGTERM: time for the running job's checkpoint")
      ->capture_default_str();
  add_security(coordinator_command);
  coordinator_command->add_option("--tokens", coordinator.tokens,
                                  "File of people's tokens, as 'sluicectl token create' makes it: the job API wants "
                                  "one; default: none is asked for");
  coordinator_command->add_option(
      "--audit-log", coordinator.audit_log,
      "Who changed what and who was refused, JSON lines; default: audit.jsonl beside the job store");
  for (CLI::App* command : {coordinator_command, rank_command}) {
    command->add_option("--state", coordinator.state_folder, "Folder of the job store; default: that of --runs");
    command->add_option("--runs", coordinator.runs_folder, "Folder of run folders, reached by every rank by this path")
        ->capture_default_str();
    command->add_option("--ranks", coordinator.ranks, "Learner ranks in the group")
        ->capture_default_str()
        ->check(CLI::Range(1, 1024));
    command->add_option(
        "--data-root", coordinator.data_root,
        "Folder of data that clients push, reached by every rank by this path; default: none are taken");
    command->add_option("--data-quota-gib", coordinator.data_quota_gib, "Pushed data together have at most so much")
        ->capture_default_str()
        ->check(CLI::Range(0.001, 1e6));
    command->add_option("--reward", coordinator.reward,
                        "host:port of the reward server that submissions are checked against; default: not checked");
  }

  for (auto [command, publication] :
       {std::pair(rank_command, &rank.publication), std::pair(run_command, &run.publication)}) {
    command
        ->add_option(
            "--min-actors", publication->min_actors,
            "rl: actors of this rank that must hold a new version before the next step is trained; 0: none, who "
            "is slow works with the version before")
        ->capture_default_str()
        ->check(CLI::Range(0, 100'000));
    command
        ->add_option(
            "--branching", publication->branching,
            "Actors that the rank sends a version to; further ones fetch from actors with a --peer-address that "
            "hold it, each of which sends to so many at a time; 0: the rank sends to all")
        ->capture_default_str()
        ->check(CLI::Range(0, 1024));
  }

  sluice::learner::ReportFlags report;
  CLI::App* report_command = app.add_subcommand("report", "Write one HTML report over the folders of ended runs.");
  report_command->add_option("runs", report.run_folders, "Run folders, in the order of the table's rows")->required();
  report_command->add_option("--output", report.output, "The HTML file")->capture_default_str();
  report_command->add_option("--title", report.title, "Title of the page")->capture_default_str();

  sluice::learner::CompareFlags compare;
  CLI::App* compare_command = app.add_subcommand(
      "compare", "Say which differences between evaluated policies are real: paired bootstrap over users.");
  compare_command
      ->add_option("arms", compare.arms,
                   "Evaluations, as run folders or job ids; seeds of one arm joined by commas; a name before =")
      ->required();
  compare_command->add_option("--runs", compare.runs_folder, "Folder where job ids are looked up")
      ->capture_default_str();
  compare_command->add_option("--against", compare.against,
                              "Name or number of an arm that every other one is compared with; default: the first");
  compare_command->add_option("--metrics", compare.metrics, "hr@10,ndcg@10,...; default: hr, ndcg, mrr at all cutoffs")
      ->delimiter(',');
  compare_command->add_option("--resamples", compare.resamples, "Bootstrap resamples")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000000));
  compare_command->add_option("--confidence", compare.confidence, "Of the intervals")->capture_default_str();
  compare_command->add_option("--seed", compare.seed, "Of the resamples")->capture_default_str();
  compare_command->add_option(
      "--cells", compare.cells,
      "rl job with held-out prompts (rl.prompt_split): compare in each cell of the stratified analysis");
  compare_command->add_option("--json", compare.json, "Write the comparison to this file too");

  sluice::learner::ReplayFlags replay;
  CLI::App* replay_command =
      app.add_subcommand("replay", "Ask other gates about the recorded groups of a run, without sampling again.");
  replay_command->add_option("run", replay.run_folder, "Folder of a run with rl.record true")->required();
  replay_command->add_option("--set", replay.overrides, "Another setting of the gate: --set rl.gate.threshold=.8");
  replay_command->add_option("--kind", replay.kinds, "Kinds of gates, separated by commas")->delimiter(',');
  replay_command->add_option("--tau", replay.taus, "Head fractions, separated by commas")->delimiter(',');
  replay_command->add_option("--rho", replay.rhos, "Bottom fractions, separated by commas")->delimiter(',');
  replay_command->add_option("--negatives", replay.negatives, "Numbers of negatives, separated by commas")
      ->delimiter(',');
  std::string replay_format = "text";
  sluice::learner::AdviseFlags advise;
  CLI::App* advise_command =
      app.add_subcommand("advise", "What the recorded groups of a run say of the ranker, and which gate to use.");
  advise_command->add_option("run", advise.run_folder, "Folder of a run with rl.record true")->required();
  advise_command->add_option("--gains", advise.gains,
                             "CSV of measured gains: error,share,gate,lambda,gain,low,high; default: none");
  for (CLI::App* command : {replay_command, advise_command}) {
    command->add_option("-o,--output", replay_format, "text or json")->check(CLI::IsMember({"text", "json"}));
  }

  sluice::learner::TraceFlags trace;
  CLI::App* trace_command = app.add_subcommand("trace", "What became of single groups of an rl run, from its folder.");
  trace_command->add_option("run", trace.run_folder, "Folder of the run")->required();
  trace_command->add_option("ordinals", trace.ordinals, "The groups, by their numbers in the job; at most 100")
      ->required()
      ->check(CLI::NonNegativeNumber);
  trace_command
      ->add_option("--journal", trace.journals,
                   "Add what an actor wrote down of them: its folder, a file, or a folder of such folders; may be "
                   "repeated")
      ->allow_extra_args(false);
  std::string trace_format = "text";
  trace_command->add_option("-o,--output", trace_format, "text or json")->check(CLI::IsMember({"text", "json"}));

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);
    return code == 0 ? 0 : static_cast<int>(sluice::ExitCode::kUsage);
  }
  sluice::InitLogging("learner", log_format == "json" ? sluice::LogFormat::kJson : sluice::LogFormat::kText,
                      sluice::LogLevel::kInfo);
  // A write beyond the limit on a file's size is an error like a full disk (exit code 14), not a death by signal.
  std::signal(SIGXFSZ, SIG_IGN);
  if (const absl::Status status = sluice::StartFailpoints(); !status.ok()) return Report(status);
  if (stop_request != kGoOn && (*coordinator_command || *rank_command || *run_command)) {
    sluice::LogInfo("stopped while starting");
    return Report(*run_command ? sluice::PreemptedError("stopped before the job began; run again to begin it")
                               : absl::OkStatus());
  }
  if (*compare_command) return Report(sluice::learner::CompareCommand(compare));
  if (*report_command) return Report(sluice::learner::ReportCommand(report));
  replay.json = advise.json = replay_format == "json";
  if (*replay_command) return Report(sluice::learner::ReplayCommand(replay));
  if (*advise_command) return Report(sluice::learner::AdviseCommand(advise));
  trace.json = trace_format == "json";
  if (*trace_command) return Report(sluice::learner::TraceCommand(trace));
  sluice::ServiceManager manager(sluice::TakeNotifySocket());
  sluice::RoleSet roles;
  if (*coordinator_command || with_coordinator) roles.Add(sluice::Role::kCoordinator);
  if (!*coordinator_command) roles.Add(sluice::Role::kRank);
  const absl::StatusOr<sluice::ServerSecurity> secured = sluice::LoadServerSecurity(security, roles);
  if (!secured.ok()) return Report(secured.status());
  coordinator.security = rank.security = run.security = *secured;
  if (*coordinator_command) return Report(sluice::learner::CoordinatorCommand(coordinator, stop_request, &manager));
  if (*rank_command) {
    std::unique_ptr<sluice::learner::CoordinatorServer> server;
    if (with_coordinator) {
      coordinator.address = rank.coordinator;
      coordinator.security.health_address.clear();  // the rank's tells of both
      absl::StatusOr<std::unique_ptr<sluice::learner::CoordinatorServer>> started =
          sluice::learner::StartCoordinator(coordinator);
      if (!started.ok()) return Report(started.status());
      server = *std::move(started);
      rank.coordinator = server->address();
    }
    return Report(sluice::learner::RankCommand(rank, stop_request, &manager));
  }
  return Report(sluice::learner::RunCommand(run, stop_request));
}
