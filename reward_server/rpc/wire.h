// Between proto/sluice/v1/reward.proto and the reward server's own types.
#ifndef SLUICE_REWARD_SERVER_RPC_WIRE_H_
#define SLUICE_REWARD_SERVER_RPC_WIRE_H_

#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "reward_server/ranker/score_groups.h"
#include "sluice/v1/reward.pb.h"

namespace sluice::reward {

// What one group may hold. Ids are not checked here: an unknown one fails its group, not the request.
inline constexpr int kMaxCandidates = 8192;
inline constexpr int kMaxHistory = 16384;
inline constexpr int kMaxGroupItems = 65536;
inline constexpr int kMaxLeftOut = 256;

// InvalidArgument: no groups, or one that is larger than the limits, by its place and ordinal.
absl::StatusOr<std::vector<GroupToScore>> GroupsFromProto(const v1::ScoreRequest& request);

// Appends the results to `response`.
void ResultsToProto(absl::Span<const GroupResult> results, v1::ScoreResponse* response);

}  // namespace sluice::reward

#endif  // SLUICE_REWARD_SERVER_RPC_WIRE_H_
