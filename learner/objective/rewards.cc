#include "learner/objective/rewards.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/status/status.h"

namespace sluice::learner {
namespace {

absl::string_view ScoreStatusName(ScoreStatus status) {
  switch (status) {
    case ScoreStatus::kOk:
      return "ok";
    case ScoreStatus::kUnavailable:
      return "unavailable";
    case ScoreStatus::kInvalid:
      return "invalid";
    case ScoreStatus::kRejected:
      return "rejected";
    case ScoreStatus::kNotAsked:
      return "not asked";
  }
  return "unknown";
}

absl::StatusOr<std::vector<double>> FiniteScores(const std::vector<float>& scores, size_t want, absl::string_view what,
                                                 const std::string& head) {
  if (scores.size() != want) {
    return absl::InvalidArgumentError(
        absl::StrCat("head '", head, "': want ", want, " ", what, " scores, got ", scores.size()));
  }
  for (size_t i = 0; i < scores.size(); ++i) {
    if (!std::isfinite(scores[i])) {
      return absl::InvalidArgumentError(
          absl::StrCat("head '", head, "': score of ", what, " ", i, " is ", scores[i], ", not a finite number"));
    }
  }
  return std::vector<double>(scores.begin(), scores.end());
}

}  // namespace

absl::StatusOr<GroupRewards> RewardsOf(const ScoredGroup& group, const RewardOptions& options) {
  if (group.score_status != ScoreStatus::kOk) {
    return absl::UnavailableError(absl::StrCat("no scores (", ScoreStatusName(group.score_status), ")",
                                               group.score_error.empty() ? "" : ": ", group.score_error));
  }
  const auto head = std::find_if(group.heads.begin(), group.heads.end(),
                                 [&](const ScoreHead& candidate) { return candidate.name == options.head; });
  if (head == group.heads.end()) {
    return absl::NotFoundError(absl::StrCat(
        "ranker '", options.ranker, "' answered without the head '", options.head, "'; it has: ",
        absl::StrJoin(group.heads, ", ", [](std::string* out, const ScoreHead& h) { out->append(h.name); }),
        ". Set rl.reward.head to one of them."));
  }
  GroupRewards rewards;
  SLUICE_ASSIGN_OR_RETURN(rewards.completions,
                          FiniteScores(head->completion_scores, group.completions.size(), "completion", head->name));
  SLUICE_ASSIGN_OR_RETURN(rewards.negatives,
                          FiniteScores(head->negative_scores, group.negative_leaves.size(), "negative", head->name));
  SLUICE_ASSIGN_OR_RETURN(rewards.history,
                          FiniteScores(head->history_scores, group.history_items.size(), "history", head->name));
  SLUICE_ASSIGN_OR_RETURN(const std::vector<double> target,
                          FiniteScores({head->target_score}, 1, "target", head->name));
  rewards.target = target[0];
  return rewards;
}

std::vector<double> RuleRewards(absl::Span<const int32_t> completion_leaves, int32_t target_leaf) {
  std::vector<double> rewards;
  rewards.reserve(completion_leaves.size());
  for (const int32_t leaf : completion_leaves) rewards.push_back(leaf == target_leaf ? 1.0 : 0.0);
  return rewards;
}

std::vector<double> RankingRewards(absl::Span<const int32_t> completion_leaves, int32_t target_leaf,
                                   RankingDenominator denominator, RankingNoHit no_hit) {
  std::vector<double> rewards(completion_leaves.size(), 0.0);
  const bool hit =
      std::find(completion_leaves.begin(), completion_leaves.end(), target_leaf) != completion_leaves.end();
  if (!hit && no_hit == RankingNoHit::kZero) return rewards;
  double sum = 0;
  for (size_t k = 0; k < completion_leaves.size(); ++k) {
    const bool negative = completion_leaves[k] != target_leaf;
    const double weight = 1.0 / std::log2(static_cast<double>(k) + 2.0);
    if (negative) rewards[k] = -weight;
    if (negative || denominator == RankingDenominator::kAllSlots) sum += weight;
  }
  if (sum == 0) return rewards;  // nothing but copies of the target
  for (double& reward : rewards) reward /= sum;
  return rewards;
}

std::vector<int> SharedPrefixes(const std::vector<absl::Span<const int32_t>>& completions,
                                absl::Span<const int32_t> target) {
  std::vector<int> shared;
  shared.reserve(completions.size());
  for (const absl::Span<const int32_t>& tokens : completions) {
    SLUICE_CHECK(tokens.size() == target.size(), "semantic IDs of one catalog have one length");
    const auto [difference, unused] = std::mismatch(tokens.begin(), tokens.end(), target.begin());
    shared.push_back(static_cast<int>(difference - tokens.begin()));
  }
  return shared;
}

std::vector<double> PrefixRewards(const std::vector<absl::Span<const int32_t>>& completions,
                                  absl::Span<const int32_t> target) {
  std::vector<double> rewards;
  rewards.reserve(completions.size());
  for (const int shared : SharedPrefixes(completions, target)) {
    rewards.push_back(shared / static_cast<double>(target.size()));
  }
  return rewards;
}

double Cosine(absl::Span<const float> a, absl::Span<const float> b) {
  double product = 0, a_squares = 0, b_squares = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    product += static_cast<double>(a[i]) * b[i];
    a_squares += static_cast<double>(a[i]) * a[i];
    b_squares += static_cast<double>(b[i]) * b[i];
  }
  const double lengths = std::sqrt(a_squares) * std::sqrt(b_squares);
  return lengths > 0 ? product / lengths : 0;
}

std::vector<double> SemanticRewards(absl::Span<const int32_t> completion_leaves, int32_t target_leaf,
                                    const LeafVectors& vectors) {
  std::vector<double> rewards;
  rewards.reserve(completion_leaves.size());
  for (const int32_t leaf : completion_leaves) {
    // The target is itself, also where its vector has no direction.
    rewards.push_back(leaf == target_leaf ? 1 : Cosine(vectors.Of(leaf), vectors.Of(target_leaf)));
  }
  return rewards;
}

void ApplyFloor(double floor, absl::Span<double> rewards) {
  for (double& reward : rewards) {
    if (!(reward > floor)) reward = 0;
  }
}

void RaisePositivesToMax(absl::Span<const int32_t> leaves, int32_t target_leaf, absl::Span<double> rewards) {
  SLUICE_CHECK(leaves.size() == rewards.size(), "one reward a member");
  if (rewards.empty()) return;
  const double most = *std::max_element(rewards.begin(), rewards.end());
  for (size_t i = 0; i < leaves.size(); ++i) {
    if (leaves[i] == target_leaf) rewards[i] = most;
  }
}

}  // namespace sluice::learner
