// `sluice-learner coordinator`: the job API and the learner group's membership.
#ifndef SLUICE_LEARNER_COORDINATOR_COMMAND_H_
#define SLUICE_LEARNER_COORDINATOR_COMMAND_H_

#include <atomic>
#include <string>

#include "absl/status/status.h"

namespace sluice::learner {

struct CoordinatorFlags {
  std::string address = "127.0.0.1:7070";  // host:port of the job API and of the ranks' service
  std::string metrics_address;             // host:port of /metrics; empty: none. 7071 by custom
  std::string runs_folder = "runs";        // run folders; also jobs.db unless --store says otherwise
  std::string store_path;                  // the job store; empty: runs_folder/jobs.db
  int ranks = 1;                           // ranks of the learner group
  double heartbeat_s = 0.5;
  double lease_s = 5;   // without a heartbeat for this long a rank is out
  double drain_s = 60;  // time for the running job to write a checkpoint when this process is asked to end
};

// Serves until `stop` is not 0 (a signal handler sets it), then drains and returns OK.
absl::Status CoordinatorCommand(const CoordinatorFlags& flags, const std::atomic<int>& stop);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_COORDINATOR_COMMAND_H_
