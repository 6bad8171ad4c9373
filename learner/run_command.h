// `sluice-learner run SPEC`: one job in this process, without a coordinator.
#ifndef SLUICE_LEARNER_RUN_COMMAND_H_
#define SLUICE_LEARNER_RUN_COMMAND_H_

#include <atomic>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/rpc/server.h"
#include "learner/publish/publication.h"

namespace sluice::learner {

inline constexpr char kDefaultAddress[] = "127.0.0.1:7090";

struct RunFlags {
  std::string spec_path;
  std::vector<std::string> overrides;  // --set a.b=c
  std::string runs_folder = "runs";
  std::string run_folder;  // empty: runs_folder/<name>-<start of the spec's digest>
  // Where actors reach this rank. Empty: rl serves them at kDefaultAddress, evaluate decodes alone.
  std::string address;
  std::string collective_host = "127.0.0.1";  // address of this host that actors reach (Gloo)
  std::string weights = "auto";               // as ParseWeights (common/collective/backend.h)
  std::string metrics_address;                // empty: none
  int threads = 1;                            // torch's
  std::string device = "cpu";                 // as ParsePlacement (common/tensor/device.h)
  std::string precision = "fp32";
  ServerSecurity security;
  PublicationOptions publication;  // --min-actors and --branching
};

// Runs the job to its end; a run folder with a checkpoint of the same spec resumes. `stop` holds a StopRequest that a
// signal handler may set. The status's exit code is the outcome (common/status/exit_code.h).
absl::Status RunCommand(const RunFlags& flags, const std::atomic<int>& stop);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RUN_COMMAND_H_
