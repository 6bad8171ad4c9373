// The actor's side of rollout.proto: jobs, leases and outcomes. InvalidArgument: a value that this version does not
// know, or one outside its range.
#ifndef SLUICE_ACTOR_RPC_ROLLOUT_CONVERT_H_
#define SLUICE_ACTOR_RPC_ROLLOUT_CONVERT_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "actor/rollout/lease_block.h"
#include "common/job_lines/job_lines.h"
#include "sluice/v1/rollout.pb.h"

namespace sluice::actor {

absl::StatusOr<JobContext> FromProto(const v1::Welcome& proto);

// `received`: when the lease came; its deadline counts from there.
absl::StatusOr<LeaseBlock> FromProto(const v1::Lease& proto, absl::Time received);

v1::ActorMessage ToProto(const LeaseBlock& block, const PromptOutcome& outcome);

v1::ActorLine ToProto(const JobLine& line);

// Prompt i of the block, given back.
v1::ActorMessage GiveBack(const LeaseBlock& block, size_t i, const std::string& reason);

}  // namespace sluice::actor

#endif  // SLUICE_ACTOR_RPC_ROLLOUT_CONVERT_H_
