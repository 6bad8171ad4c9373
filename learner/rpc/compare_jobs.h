// `sluicectl compare`: the paired comparison of evaluated jobs, where their run folders are.
#ifndef SLUICE_LEARNER_RPC_COMPARE_JOBS_H_
#define SLUICE_LEARNER_RPC_COMPARE_JOBS_H_

#include "absl/status/statusor.h"
#include "learner/job/job_store.h"
#include "sluice/v1/job.pb.h"

namespace sluice::learner {

// NotFound: no such job. FailedPrecondition: a job has no outcomes of users. InvalidArgument as Compare says.
absl::StatusOr<v1::CompareResponse> CompareJobs(const v1::CompareRequest& request, JobStore* store);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RPC_COMPARE_JOBS_H_
