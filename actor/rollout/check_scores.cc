#include "actor/rollout/check_scores.h"

#include <cmath>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status/status.h"

namespace sluice::actor {
namespace {

struct Verdict {
  ScoreStatus status = ScoreStatus::kOk;
  std::string error;
};

Verdict Invalid(std::string error) { return {ScoreStatus::kInvalid, std::move(error)}; }

ScoreStatus StatusOfFailedCall(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kUnimplemented:
      return ScoreStatus::kRejected;
    default:
      return ScoreStatus::kUnavailable;
  }
}

// What makes the whole answer doubtful.
Verdict CheckResponse(const RewardRequest& request, const RewardResponse& response) {
  if (response.ranker_version.empty()) return Invalid("the reward server's answer names no ranker version");
  if (response.catalog_version != request.catalog_version) {
    return Invalid(absl::StrCat("want scores under catalog ", request.catalog_version, ", got catalog ",
                                response.catalog_version));
  }
  if (response.groups.size() != request.groups.size()) {
    return Invalid(absl::StrCat("want scores of ", request.groups.size(), " groups, got ", response.groups.size()));
  }
  for (size_t i = 0; i < request.groups.size(); ++i) {
    const GroupToScore& asked = request.groups[i];
    const GroupScores& answered = response.groups[i];
    if (asked.ordinal != answered.ordinal || asked.attempt != answered.attempt) {
      return Invalid(absl::StrCat("want scores of ordinal ", asked.ordinal, " attempt ", asked.attempt, " at position ",
                                  i, ", got ordinal ", answered.ordinal, " attempt ", answered.attempt));
    }
  }
  return {};
}

Verdict CheckHead(const GroupToScore& asked, const CandidateScores& head) {
  if (head.scores.size() != asked.candidates.size()) {
    return Invalid(
        absl::StrCat("head '", head.head, "': want ", asked.candidates.size(), " scores, got ", head.scores.size()));
  }
  for (size_t i = 0; i < head.scores.size(); ++i) {
    if (!std::isfinite(head.scores[i])) {
      return Invalid(absl::StrCat("head '", head.head, "': the score of candidate ", i, " is ", head.scores[i]));
    }
  }
  if (asked.target >= 0 && !std::isfinite(head.target)) {
    return Invalid(absl::StrCat("head '", head.head, "': the score of the target is ", head.target));
  }
  // A server of an earlier release knows nothing of items to leave out, and scores the rest as ever.
  if (!head.left_out.empty() && head.left_out.size() != asked.leave_out.size()) {
    return Invalid(absl::StrCat("head '", head.head, "': want scores of ", asked.leave_out.size(),
                                " items left out of the history, got ", head.left_out.size()));
  }
  for (size_t i = 0; i < head.left_out.size(); ++i) {
    if (!std::isfinite(head.left_out[i])) {
      return Invalid(
          absl::StrCat("head '", head.head, "': the score of history item ", i, " left out is ", head.left_out[i]));
    }
  }
  return {};
}

Verdict CheckGroup(const GroupToScore& asked, const GroupScores& answered) {
  switch (answered.status) {
    case GroupScoreStatus::kOk:
      break;
    case GroupScoreStatus::kInvalidInput:
      return {ScoreStatus::kRejected, absl::StrCat("the ranker refused the group: ", answered.error)};
    case GroupScoreStatus::kNotFinite:
      return Invalid(absl::StrCat("the ranker's scores are not finite: ", answered.error));
    case GroupScoreStatus::kFailed:
      return {ScoreStatus::kUnavailable, absl::StrCat("the ranker failed: ", answered.error)};
  }
  if (answered.heads.empty()) return Invalid("the answer has no head");
  std::set<std::string> names;
  for (const CandidateScores& head : answered.heads) {
    if (head.head.empty() || !names.insert(head.head).second) {
      return Invalid(absl::StrCat("head name '", head.head, "' is empty or doubled"));
    }
    if (Verdict verdict = CheckHead(asked, head); verdict.status != ScoreStatus::kOk) return verdict;
    if (head.left_out.size() != answered.heads[0].left_out.size()) {
      return Invalid(absl::StrCat("head '", head.head, "' has scores of ", head.left_out.size(),
                                  " items left out of the history, head '", answered.heads[0].head, "' of ",
                                  answered.heads[0].left_out.size()));
    }
  }
  return {};
}

ScoreHead SplitHead(const GroupToScore& asked, const CandidateScores& head, size_t completions) {
  ScoreHead split;
  split.name = head.head;
  split.completion_scores.assign(head.scores.begin(), head.scores.begin() + completions);
  split.negative_scores.assign(head.scores.begin() + completions, head.scores.end());
  split.target_score = asked.target >= 0 ? head.target : 0;
  split.history_scores = head.left_out;
  return split;
}

}  // namespace

void ApplyScores(const RewardRequest& request, const absl::StatusOr<RewardResponse>& response,
                 absl::Span<ScoredGroup* const> groups) {
  SLUICE_CHECK(groups.size() == request.groups.size(), "one group to fill for every group asked");
  Verdict whole;
  if (response.ok()) {
    whole = CheckResponse(request, *response);
  } else {
    whole = {StatusOfFailedCall(response.status()), response.status().ToString()};
  }
  for (size_t i = 0; i < groups.size(); ++i) {
    ScoredGroup& group = *groups[i];
    const Verdict verdict =
        whole.status == ScoreStatus::kOk ? CheckGroup(request.groups[i], response->groups[i]) : whole;
    group.score_status = verdict.status;
    group.score_error = verdict.error;
    if (verdict.status != ScoreStatus::kOk) continue;
    group.ranker_version = response->ranker_version;
    if (!response->groups[i].heads[0].left_out.empty()) group.history_items = request.groups[i].leave_out;
    for (const CandidateScores& head : response->groups[i].heads) {
      group.heads.push_back(SplitHead(request.groups[i], head, group.completions.size()));
    }
  }
}

}  // namespace sluice::actor
