// What the rollout worker needs of the reward server. actor/rpc implements it
// with gRPC.
#ifndef SLUICE_ACTOR_ROLLOUT_REWARD_CLIENT_H_
#define SLUICE_ACTOR_ROLLOUT_REWARD_CLIENT_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace sluice::actor {

struct GroupToScore {
  uint64_t ordinal = 0;
  uint32_t attempt = 0;
  int32_t user = -1;
  std::vector<int32_t> history;                  // item ids, oldest first
  int32_t target = -1;                           // item id; -1: none
  std::vector<std::vector<int32_t>> candidates;  // items of each leaf: completions, then negatives
  std::vector<int32_t> leave_out = {};  // distinct items of the history, each to be scored given the rest of it
};

struct RewardRequest {
  std::string job_id;
  std::string ranker;
  std::string catalog_version;
  bool mean_of_items = false;
  std::vector<GroupToScore> groups;
};

enum class GroupScoreStatus {
  kOk,
  kInvalidInput,  // unknown item, empty history
  kNotFinite,     // the ranker answered NaN or infinity
  kFailed,        // the ranker threw or ran out of memory
};

struct CandidateScores {
  std::string head;
  std::vector<float> scores;         // one a candidate
  float target = 0;                  // meaningful if a target was asked
  std::vector<float> left_out = {};  // one an item to leave out; none from a server that cannot
};

struct GroupScores {
  uint64_t ordinal = 0;
  uint32_t attempt = 0;
  GroupScoreStatus status = GroupScoreStatus::kFailed;
  std::string error;
  std::vector<CandidateScores> heads;
};

struct RewardResponse {
  std::string ranker_version;
  std::string catalog_version;
  std::vector<GroupScores> groups;
};

class RewardClient {
 public:
  virtual ~RewardClient() = default;

  // One call, no retries of its own; the answer is passed on unchecked. Must
  // return by `deadline` (DeadlineExceeded). Unavailable and ResourceExhausted
  // are tried again by the caller, and may say when (WithRetryAfter).
  virtual absl::StatusOr<RewardResponse> Score(const RewardRequest& request, absl::Time deadline) = 0;
};

// Marks a refusal with the time that the server asked to wait, and reads it
// back.
absl::Status WithRetryAfter(absl::Status status, absl::Duration delay);
std::optional<absl::Duration> RetryAfter(const absl::Status& status);

}  // namespace sluice::actor

#endif  // SLUICE_ACTOR_ROLLOUT_REWARD_CLIENT_H_
