// `sluice-learner rank`: a resident member of the learner group, which runs the jobs that the coordinator assigns.
#ifndef SLUICE_LEARNER_RANK_COMMAND_H_
#define SLUICE_LEARNER_RANK_COMMAND_H_

#include <atomic>
#include <string>

#include "absl/status/status.h"
#include "common/rpc/server.h"
#include "common/service_manager/service_manager.h"
#include "learner/publish/publication.h"

namespace sluice::learner {

struct RankFlags {
  std::string coordinator = "127.0.0.1:7070";
  std::string address = "127.0.0.1:7090";     // where actors reach this rank; port 0 picks one
  std::string collective_host = "127.0.0.1";  // address of this host that ranks and actors reach (Gloo)
  std::string collective = "auto";            // as ParseBackend (common/collective/backend.h)
  std::string weights = "auto";               // as ParseWeights, the same place
  std::string metrics_address;                // empty: none
  int threads = 1;                            // torch's
  std::string device = "cpu";                 // as ParsePlacement (common/tensor/device.h)
  std::string precision = "fp32";
  ServerSecurity security;
  PublicationOptions publication;  // --min-actors and --branching
};

// Runs until `stop` holds a StopRequest: then the job in hand ends after a checkpoint and the rank leaves the group.
absl::Status RankCommand(const RankFlags& flags, const std::atomic<int>& stop, ServiceManager* manager);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RANK_COMMAND_H_
