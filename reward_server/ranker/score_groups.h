// Scores whole groups with a ranker: checks what came, asks once for everything, checks what it answers.
#ifndef SLUICE_REWARD_SERVER_RANKER_SCORE_GROUPS_H_
#define SLUICE_REWARD_SERVER_RANKER_SCORE_GROUPS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "reward_server/ranker/aggregate.h"
#include "reward_server/ranker/ranker.h"

namespace sluice::reward {

// The candidates of one prompt, as proto/sluice/v1/reward.proto has them.
struct GroupToScore {
  uint64_t ordinal = 0;
  uint32_t attempt = 0;
  int32_t user = -1;
  std::vector<int32_t> history;                  // item ids, oldest first
  int32_t target = -1;                           // scored as this one item; -1: none
  std::vector<std::vector<int32_t>> candidates;  // the items of each; at least one item each
  ItemAggregation aggregation = ItemAggregation::kBest;
  // Distinct items of the history, each scored given the history without it; something must be left of it.
  std::vector<int32_t> leave_out = {};

  int64_t num_candidates() const {
    return static_cast<int64_t>(candidates.size() + leave_out.size()) + (target >= 0 ? 1 : 0);
  }
};

enum class GroupStatus {
  kOk,
  kInvalidInput,  // unknown user or item, empty history, nothing to score
  kNotFinite,     // the ranker answered NaN or infinity
  kFailed,        // the ranker threw, ran out of memory, or answered something else than asked
};

struct HeadScores {
  std::string head;
  std::vector<float> scores;         // one a candidate, finite
  float target = 0;                  // finite; meaningful if a target was asked
  std::vector<float> left_out = {};  // one an item to leave out, finite
};

struct GroupResult {
  uint64_t ordinal = 0;
  uint32_t attempt = 0;
  GroupStatus status = GroupStatus::kFailed;
  std::string error;              // one sentence; empty when OK
  std::vector<HeadScores> heads;  // empty unless OK: a failed group carries no number
};

// One result a group, in order. A bad group does not touch the others. Thread-safe.
std::vector<GroupResult> ScoreGroups(const Ranker& ranker, absl::Span<const GroupToScore* const> groups);

}  // namespace sluice::reward

#endif  // SLUICE_REWARD_SERVER_RANKER_SCORE_GROUPS_H_
