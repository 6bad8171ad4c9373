// `sluice-learner coordinator`: the job API and the learner group's membership.
#ifndef SLUICE_LEARNER_COORDINATOR_COMMAND_H_
#define SLUICE_LEARNER_COORDINATOR_COMMAND_H_

#include <atomic>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/rpc/server.h"
#include "common/service_manager/service_manager.h"
#include "learner/rpc/coordinator_server.h"

namespace sluice::learner {

struct CoordinatorFlags {
  std::string address = "127.0.0.1:7070";  // host:port of the job API and of the ranks' service
  std::string metrics_address;             // host:port of /metrics; empty: none. 7071 by custom
  std::string runs_folder = "runs";        // run folders; every rank reaches them by this path
  std::string state_folder;                // jobs.db lies here; empty: runs_folder
  int ranks = 1;                           // ranks of the learner group
  double heartbeat_s = 0.5;
  std::string data_root;  // folder of pushed data; empty: none are taken
  double data_quota_gib = 64;
  std::string reward;  // host:port, asked before jobs are submitted; empty: not
  double lease_s = 5;  // without a heartbeat for this long a rank is out
  ServerSecurity security;
  std::string tokens;     // file of people's tokens; empty: none are asked for
  std::string audit_log;  // empty: audit.jsonl in the folder of the job store
  double drain_s = 60;    // time for the running job to write a checkpoint when this process is asked to end
};

// Makes the folders and starts serving.
absl::StatusOr<std::unique_ptr<CoordinatorServer>> StartCoordinator(const CoordinatorFlags& flags);

// Serves until `stop` is not 0 (a signal handler sets it), then drains and returns OK.
absl::Status CoordinatorCommand(const CoordinatorFlags& flags, const std::atomic<int>& stop, ServiceManager* manager);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_COORDINATOR_COMMAND_H_
