// All about one job, from the store, the coordinator and the run folder.
#ifndef SLUICE_LEARNER_RPC_DESCRIBE_JOB_H_
#define SLUICE_LEARNER_RPC_DESCRIBE_JOB_H_

#include <string>

#include "absl/status/statusor.h"
#include "learner/coordinator/coordinator.h"
#include "sluice/v1/job.pb.h"

namespace sluice::learner {

// NotFound: no such job. DataLoss: its spec cannot be read.
absl::StatusOr<v1::DescribeResponse> DescribeJob(Coordinator* coordinator, const std::string& job_id);

// `rank` -1: it stands by.
v1::MemberSummary MemberMessage(const Member& member, int rank, absl::Time now);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RPC_DESCRIBE_JOB_H_
