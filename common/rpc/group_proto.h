// Groups, beams and prompts between their wire form (proto/sluice/v1/{group,rollout}.proto) and plain data: what actor
// and learner both translate. Contents are not judged here beyond what a type cannot hold: InvalidArgument for an enum
// value that this version does not know.
#ifndef SLUICE_COMMON_RPC_GROUP_PROTO_H_
#define SLUICE_COMMON_RPC_GROUP_PROTO_H_

#include "absl/status/statusor.h"
#include "common/types/group.h"
#include "sluice/v1/group.pb.h"
#include "sluice/v1/rollout.pb.h"

namespace sluice {

void ToProto(const Completion& completion, v1::Completion* proto);
Completion FromProto(const v1::Completion& proto);

void ToProto(const ScoredGroup& group, v1::ScoredGroup* proto);
absl::StatusOr<ScoredGroup> FromProto(const v1::ScoredGroup& proto);

void ToProto(const DecodedPrompt& decoded, v1::DecodedPrompt* proto);
DecodedPrompt FromProto(const v1::DecodedPrompt& proto);

void ToProto(const Prompt& prompt, v1::PromptToSample* proto);
Prompt FromProto(const v1::PromptToSample& proto);

v1::Sampler ToProto(SamplerKind sampler);
absl::StatusOr<SamplerKind> FromProto(v1::Sampler sampler);
v1::LogProbSpace ToProto(LogProbSpace space);
absl::StatusOr<LogProbSpace> FromProto(v1::LogProbSpace space);

}  // namespace sluice

#endif  // SLUICE_COMMON_RPC_GROUP_PROTO_H_
