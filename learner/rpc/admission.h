// What a submission is checked for beyond its words, and what the job would do and need: everything that can be known
// before it runs. Creates nothing.
#ifndef SLUICE_LEARNER_RPC_ADMISSION_H_
#define SLUICE_LEARNER_RPC_ADMISSION_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/rpc/credentials.h"
#include "learner/coordinator/coordinator.h"
#include "learner/data/data_store.h"
#include "sluice/v1/job.pb.h"

namespace sluice::learner {

// Replaces "digest:HEX" and "digest:HEX/file" in data, prepare.events and model.path by the pushed folder's path.
// InvalidArgument: there is no such data, or `data` is null: this coordinator takes none.
absl::Status ResolvePushedData(const DataStore* data, v1::JobSpec* spec);

struct AdmissionOptions {
  std::string runs_folder;
  std::string reward_address;                                                 // empty: no reward server is asked
  std::shared_ptr<const Credentials> credentials = Credentials::Plaintext();  // for it
  int max_queued = 1000;
};

// Answers also if checks fail: they are in it. `data` may be null. Errors are those of the store.
absl::StatusOr<v1::PlanResponse> PlanAdmission(const v1::PlanRequest& request, const AdmissionOptions& options,
                                               Coordinator* coordinator, const DataStore* data);

// How long `steps` steps of `spec` would take by the most similar of the jobs that succeeded; nothing if none is
// similar. Pure.
struct PastJob {
  std::string id;
  v1::JobSpec spec;
  double seconds = 0;
  uint64_t steps = 0;
};
struct TimeEstimate {
  double seconds = 0;  // 0: not known
  std::string from;
  std::string how;
};
TimeEstimate EstimateTime(const v1::JobSpec& spec, double steps, const std::vector<PastJob>& past);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RPC_ADMISSION_H_
