// Jobs between their plain form (learner/job) and their messages (proto/sluice/v1/job.proto, member.proto).
#ifndef SLUICE_LEARNER_RPC_JOB_MESSAGES_H_
#define SLUICE_LEARNER_RPC_JOB_MESSAGES_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/rpc/timestamp.h"
#include "learner/job/job.h"
#include "learner/job/job_store.h"
#include "sluice/v1/job.pb.h"
#include "sluice/v1/member.pb.h"

namespace sluice::learner {

v1::JobState ToMessage(JobState state);
v1::JobSummary SummaryMessage(const JobRecord& job);
v1::JobEvent ToMessage(const JobEvent& event);
v1::LedgerBalance ToMessage(const LedgerBalance& balance);
LedgerBalance FromMessage(const v1::LedgerBalance& message);

// InvalidArgument if the report breaks a bound (points, lines, lengths) or has no id.
absl::StatusOr<JobReport> FromMessage(const v1::JobReport& message);
// What a rank may report as outcome: a terminal state, or QUEUED for a preemption. InvalidArgument otherwise.
absl::StatusOr<JobInput> OutcomeFromMessage(v1::JobState state);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RPC_JOB_MESSAGES_H_
