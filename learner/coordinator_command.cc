#include "learner/coordinator_command.h"

#include <memory>

#include "absl/time/clock.h"
#include "common/file/file.h"
#include "common/log/log.h"
#include "common/status/status.h"
#include "learner/rpc/coordinator_server.h"

namespace sluice::learner {

absl::Status CoordinatorCommand(const CoordinatorFlags& flags, const std::atomic<int>& stop) {
  CoordinatorServerOptions options;
  options.address = flags.address;
  options.metrics_address = flags.metrics_address;
  options.store_path = flags.store_path.empty() ? JoinPath(flags.runs_folder, "jobs.db") : flags.store_path;
  options.store.runs_folder = flags.runs_folder;
  options.coordinator.ranks = flags.ranks;
  options.coordinator.heartbeat_interval = absl::Seconds(flags.heartbeat_s);
  options.coordinator.lease = absl::Seconds(flags.lease_s);
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<CoordinatorServer> server, CoordinatorServer::Start(options));
  while (stop == 0) absl::SleepFor(absl::Milliseconds(100));
  const absl::Status drained = server->Drain(absl::Seconds(flags.drain_s));
  // Not an error of this process: the job is in the store and goes on when both are back.
  if (!drained.ok()) LogWarning("ending with a running job", {{"reason", std::string(drained.message())}});
  return absl::OkStatus();
}

}  // namespace sluice::learner
