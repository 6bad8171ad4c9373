// The learner's side of rollout.proto: rank messages out, results in.
#ifndef SLUICE_LEARNER_RPC_ROLLOUT_CONVERT_H_
#define SLUICE_LEARNER_RPC_ROLLOUT_CONVERT_H_

#include <string>

#include "absl/status/statusor.h"
#include "common/job_lines/job_lines.h"
#include "learner/ledger/rank_message.h"
#include "sluice/v1/rollout.pb.h"

namespace sluice::learner {

v1::RankMessage ToProto(const RankMessage& message);

// InvalidArgument: no outcome, or an enum value that is not known.
absl::StatusOr<ActorResult> FromProto(const v1::Result& proto);

// Of the actor `source`. A level that is not known is "info".
JobLine FromProto(const v1::ActorLine& proto, const std::string& source);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RPC_ROLLOUT_CONVERT_H_
