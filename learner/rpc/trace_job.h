// `sluicectl trace`: what became of groups, from the run folder (learner/trace) and what the job store knows of the
// job.
#ifndef SLUICE_LEARNER_RPC_TRACE_JOB_H_
#define SLUICE_LEARNER_RPC_TRACE_JOB_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "learner/job/job_store.h"
#include "sluice/v1/job.pb.h"

namespace sluice::learner {

// As JobService.Trace: its errors are there.
absl::StatusOr<v1::TraceResponse> TraceJob(const v1::TraceRequest& request, JobStore* store);

// The same of a folder alone, as of a run without a coordinator: times of day and the job's events are not known.
// InvalidArgument also: the folder is not that of a run. The response's job is the folder's name, which is a
// coordinator's job's id.
absl::StatusOr<v1::TraceResponse> TraceFolder(const std::string& run_folder, const std::vector<uint64_t>& ordinals);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RPC_TRACE_JOB_H_
