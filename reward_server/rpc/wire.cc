#include "reward_server/rpc/wire.h"

#include "absl/strings/str_cat.h"

namespace sluice::reward {
namespace {

v1::GroupScoreStatus StatusToProto(GroupStatus status) {
  switch (status) {
    case GroupStatus::kOk:
      return v1::GROUP_SCORE_STATUS_OK;
    case GroupStatus::kInvalidInput:
      return v1::GROUP_SCORE_STATUS_INVALID_INPUT;
    case GroupStatus::kNotFinite:
      return v1::GROUP_SCORE_STATUS_NOT_FINITE;
    case GroupStatus::kFailed:
      return v1::GROUP_SCORE_STATUS_FAILED;
  }
  return v1::GROUP_SCORE_STATUS_FAILED;
}

}  // namespace

absl::StatusOr<std::vector<GroupToScore>> GroupsFromProto(const v1::ScoreRequest& request) {
  if (request.groups().empty()) return absl::InvalidArgumentError("a request wants at least one group");
  std::vector<GroupToScore> groups;
  groups.reserve(static_cast<size_t>(request.groups_size()));
  for (const v1::GroupToScore& from : request.groups()) {
    const auto too_large = [&](absl::string_view what, int limit, int got) {
      return absl::InvalidArgumentError(absl::StrCat("group ", groups.size(), " (ordinal ", from.ordinal(),
                                                     "): want at most ", limit, " ", what, ", got ", got));
    };
    if (from.candidates_size() > kMaxCandidates) return too_large("candidates", kMaxCandidates, from.candidates_size());
    if (from.history_size() > kMaxHistory) return too_large("items of history", kMaxHistory, from.history_size());
    if (from.leave_out_size() > kMaxLeftOut) {
      return too_large("items to leave out", kMaxLeftOut, from.leave_out_size());
    }
    GroupToScore group;
    group.ordinal = from.ordinal();
    group.attempt = from.attempt();
    group.user = from.user();
    group.history.assign(from.history().begin(), from.history().end());
    group.target = from.target();
    group.aggregation = request.mean_of_items() ? ItemAggregation::kMean : ItemAggregation::kBest;
    group.leave_out.assign(from.leave_out().begin(), from.leave_out().end());
    group.candidates.reserve(static_cast<size_t>(from.candidates_size()));
    int items = 0;
    for (const v1::Candidate& candidate : from.candidates()) {
      items += candidate.items_size();
      if (items > kMaxGroupItems) return too_large("items over its candidates", kMaxGroupItems, items);
      group.candidates.emplace_back(candidate.items().begin(), candidate.items().end());
    }
    groups.push_back(std::move(group));
  }
  return groups;
}

void ResultsToProto(absl::Span<const GroupResult> results, v1::ScoreResponse* response) {
  for (const GroupResult& result : results) {
    v1::GroupScores* to = response->add_groups();
    to->set_ordinal(result.ordinal);
    to->set_attempt(result.attempt);
    to->set_status(StatusToProto(result.status));
    to->set_error(result.error);
    if (result.status != GroupStatus::kOk) continue;  // a failed group carries no number
    for (const HeadScores& head : result.heads) {
      v1::CandidateScores* scores = to->add_heads();
      scores->set_head(head.head);
      scores->mutable_scores()->Add(head.scores.begin(), head.scores.end());
      scores->set_target(head.target);
      scores->mutable_left_out()->Add(head.left_out.begin(), head.left_out.end());
    }
  }
}

}  // namespace sluice::reward
