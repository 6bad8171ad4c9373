#include "learner/coordinator_command.h"

#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/file/file.h"
#include "common/log/log.h"
#include "common/rpc/channel.h"
#include "common/status/status.h"
#include "learner/rpc/coordinator_server.h"

namespace sluice::learner {
namespace {

// What ending takes beyond the time for the running job's checkpoint.
constexpr absl::Duration kStopMargin = absl::Seconds(30);

}  // namespace

absl::StatusOr<std::unique_ptr<CoordinatorServer>> StartCoordinator(const CoordinatorFlags& flags) {
  const std::string state = flags.state_folder.empty() ? flags.runs_folder : flags.state_folder;
  SLUICE_RETURN_IF_ERROR(MakeDirectories(flags.runs_folder));
  SLUICE_RETURN_IF_ERROR(MakeDirectories(state));
  CoordinatorServerOptions options;
  options.address = flags.address;
  options.metrics_address = flags.metrics_address;
  options.security = flags.security;
  options.tokens_path = flags.tokens;
  options.audit_path = flags.audit_log.empty() ? JoinPath(state, "audit.jsonl") : flags.audit_log;
  options.store_path = JoinPath(state, "jobs.db");
  // What describe shows must not depend on where the coordinator was started.
  options.store.runs_folder = std::filesystem::absolute(flags.runs_folder).lexically_normal().string();
  if (!flags.data_root.empty()) {
    options.data_root = std::filesystem::absolute(flags.data_root).lexically_normal().string();
  }
  options.data_quota_bytes = static_cast<uint64_t>(flags.data_quota_gib * static_cast<double>(int64_t{1} << 30));
  if (!flags.reward.empty()) SLUICE_RETURN_IF_ERROR(CheckAddress("--reward", flags.reward));
  options.reward_address = flags.reward;
  options.coordinator.ranks = flags.ranks;
  options.coordinator.heartbeat_interval = absl::Seconds(flags.heartbeat_s);
  options.coordinator.lease = absl::Seconds(flags.lease_s);
  SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<CoordinatorServer> server, CoordinatorServer::Start(options));
  LogInfo("coordinator started",
          {{"address", server->address()}, {"ranks", flags.ranks}, {"state", state}, {"runs", flags.runs_folder}});
  return server;
}

absl::Status CoordinatorCommand(const CoordinatorFlags& flags, const std::atomic<int>& stop, ServiceManager* manager) {
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<CoordinatorServer> server, StartCoordinator(flags));
  manager->Ready(absl::StrCat("serving at ", server->address()));
  while (stop == 0) absl::SleepFor(absl::Milliseconds(100));
  const absl::Duration drain = absl::Seconds(flags.drain_s);
  manager->Stopping("draining: the running job writes a checkpoint", drain + kStopMargin);
  const absl::Status drained = server->Drain(drain);
  // Not an error of this process: the job is in the store and goes on when both are back.
  if (!drained.ok()) LogWarning("ending with a running job", {{"reason", std::string(drained.message())}});
  return absl::OkStatus();
}

}  // namespace sluice::learner
