// Turns the reward server's answer into typed scores of groups, believing
// nothing that it can check.
#ifndef SLUICE_ACTOR_ROLLOUT_CHECK_SCORES_H_
#define SLUICE_ACTOR_ROLLOUT_CHECK_SCORES_H_

#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "actor/rollout/reward_client.h"
#include "common/types/group.h"

namespace sluice::actor {

// Writes score_status, score_error, ranker_version and heads of groups[i],
// which asked for request.groups[i]: its completions first, then its negatives.
//
// No answer: kRejected if the request was refused (InvalidArgument,
// FailedPrecondition, NotFound, Unimplemented), else kUnavailable. An answer
// whose versions, length, ids or numbers are not what was asked: kInvalid, for
// every group if the whole answer is in doubt. A group that the server could
// not score: kRejected (bad input), kInvalid (not finite), kUnavailable (the
// ranker failed). Only kOk carries heads, and all their numbers are finite;
// history_items are those asked for, or none if the server knows no such scores.
void ApplyScores(const RewardRequest& request, const absl::StatusOr<RewardResponse>& response,
                 absl::Span<ScoredGroup* const> groups);

}  // namespace sluice::actor

#endif  // SLUICE_ACTOR_ROLLOUT_CHECK_SCORES_H_
