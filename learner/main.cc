// sluice-learner: coordinator, rank, or one job by itself. Wiring only.

#include <CLI/CLI.hpp>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <string>

#include "common/log/log.h"
#include "common/status/exit_code.h"
#include "learner/run/run_context.h"
#include "learner/run_command.h"

namespace {

// Read by the job between steps; written by the signal handler alone.
std::atomic<int> stop_request{static_cast<int>(sluice::learner::StopRequest::kNone)};

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
  CLI::App app("The learner of Sluice: trains policies. `sluicectl` submits jobs to it.");
  app.require_subcommand(1);
  std::string log_format = "text";
  app.add_option("--log-format", log_format, "text or json")->check(CLI::IsMember({"text", "json"}));

  sluice::learner::RunFlags run;
  CLI::App* run_command = app.add_subcommand("run", "Run one job in this process, then exit with its outcome.");
  run_command->add_option("spec", run.spec_path, "The job spec, YAML")->required();
  run_command->add_option("--set", run.overrides, "Override a key of the spec: --set rl.steps=50");
  run_command->add_option("--runs", run.runs_folder, "Folder of run folders")->capture_default_str();
  run_command->add_option("--run-folder", run.run_folder, "This run's folder; default: made from name and spec");
  run_command->add_option("--address", run.address, "rl: host:port where actors attach")->capture_default_str();
  run_command->add_option("--metrics-address", run.metrics_address, "host:port of /metrics; default: none");
  run_command->add_option("--threads", run.threads, "Compute threads")
      ->capture_default_str()
      ->check(CLI::Range(1, 256));

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);
    return code == 0 ? 0 : static_cast<int>(sluice::ExitCode::kUsage);
  }
  sluice::InitLogging("learner", log_format == "json" ? sluice::LogFormat::kJson : sluice::LogFormat::kText,
                      sluice::LogLevel::kInfo);
  std::signal(SIGTERM, OnSignal);
  std::signal(SIGINT, OnSignal);
  return Report(sluice::learner::RunCommand(run, stop_request));
}
