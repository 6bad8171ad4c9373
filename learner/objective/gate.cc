#include "learner/objective/gate.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <unordered_set>

#include "absl/strings/str_cat.h"
#include "common/status/status.h"

namespace sluice::learner {
namespace {

// ceil(fraction * size) as people compute it: .07 * 100 is 7, although the
// product in doubles is a little more.
int CeilOfShare(double fraction, int size) { return static_cast<int>(std::ceil(fraction * size - 1e-9)); }

// Where a score stands in the pool: how many are above it, how many others
// equal it.
struct Standing {
  int above = 0;
  int equal = 0;
};

Standing StandingOf(double score, const std::vector<double>& pool) {
  Standing standing{0, -1};  // the pool holds the score itself once
  for (const double other : pool) {
    if (other > score) ++standing.above;
    if (other == score) ++standing.equal;
  }
  return standing;
}

// The ceil(share * |values|)-th smallest, at least the first. An order statistic, so that the gate depends on scores
// only through their order.
double OrderQuantile(std::vector<double> values, double share) {
  const int place = std::max(1, CeilOfShare(share, static_cast<int>(values.size())));
  std::nth_element(values.begin(), values.begin() + place - 1, values.end());
  return values[static_cast<size_t>(place - 1)];
}

double RankOf(const Standing& standing, GateTies ties, bool behind_equals) {
  if (ties == GateTies::kAverage) return 1 + standing.above + standing.equal / 2.0;
  return 1 + standing.above + (behind_equals ? standing.equal : 0);
}

}  // namespace

absl::string_view GateReasonName(GateReason reason) {
  switch (reason) {
    case GateReason::kOpen:
      return "open";
    case GateReason::kFixedOpen:
      return "fixed_open";
    case GateReason::kObjective:
      return "objective";
    case GateReason::kDifficulty:
      return "difficulty";
    case GateReason::kDiscriminability:
      return "discriminability";
    case GateReason::kNegatives:
      return "negatives";
    case GateReason::kStale:
      return "stale";
    case GateReason::kRewardUnavailable:
      return "reward_unavailable";
    case GateReason::kUnsampled:
      return "unsampled";
    case GateReason::kCatalogChanged:
      return "catalog_changed";
    case GateReason::kControlOpen:
      return "control_open";
    case GateReason::kControlClosed:
      return "control_closed";
  }
  return "unknown";
}

bool IsOperational(GateReason reason) {
  return reason == GateReason::kStale || reason == GateReason::kRewardUnavailable || reason == GateReason::kUnsampled ||
         reason == GateReason::kCatalogChanged;
}

GateVerdict Decide(const GateInput& input, const GateOptions& options) {
  const size_t group_size = input.completion_leaves.size();
  SLUICE_CHECK(input.completion_scores.size() == group_size, "one score a completion");
  SLUICE_CHECK(input.negative_scores.size() == input.negative_leaves.size(), "one score a negative");
  const bool teacher_forced = options.difficulty == DifficultyMode::kTeacherForced;
  SLUICE_CHECK(!teacher_forced || input.completion_log_probs.size() == group_size, "one log-probability a completion");

  GateVerdict verdict;
  GateDiagnostics& found = verdict.diagnostics;
  found.group_size = static_cast<int>(group_size);
  found.head_size = CeilOfShare(options.tau, found.group_size);

  // Pool: the target first, then distinct completions, then usable negatives.
  std::unordered_set<int32_t> seen = {input.target_leaf};
  std::unordered_set<int32_t> listed;
  std::vector<double> pool = {input.target_score};
  found.rank_policy = teacher_forced ? 1 : found.group_size + 1;
  for (size_t i = 0; i < group_size; ++i) {
    const int32_t leaf = input.completion_leaves[i];
    if (!listed.insert(leaf).second) continue;
    if (leaf == input.target_leaf) {
      if (!teacher_forced) found.rank_policy = static_cast<double>(listed.size());
      continue;
    }
    seen.insert(leaf);
    pool.push_back(input.completion_scores[i]);
    if (teacher_forced && input.completion_log_probs[i] > input.target_log_prob) ++found.rank_policy;
  }
  const std::vector<double> group_pool = pool;  // O U {y*}
  std::vector<double> completions(pool.begin() + (listed.contains(input.target_leaf) ? 0 : 1), pool.end());
  std::vector<double> negatives;
  for (size_t i = 0; i < input.negative_leaves.size(); ++i) {
    if (seen.insert(input.negative_leaves[i]).second) negatives.push_back(input.negative_scores[i]);
  }
  pool.insert(pool.end(), negatives.begin(), negatives.end());
  found.negatives = static_cast<int>(negatives.size());
  found.pool_size = static_cast<int>(pool.size());
  if (options.zone != GateZone::kQuantile) {
    found.zone_size = CeilOfShare(options.rho, options.zone == GateZone::kPool ? found.pool_size : found.group_size);
  }

  found.difficult = found.rank_policy > found.head_size;
  found.rank_ranker = RankOf(
      StandingOf(input.target_score, options.head_pool == GateHeadPool::kGroup ? group_pool : pool), options.ties,
      /*behind_equals=*/true);
  found.in_head = found.rank_ranker <= found.head_size;
  found.suppressed = true;
  const double bound =
      options.zone == GateZone::kQuantile && !completions.empty() ? OrderQuantile(completions, 1 - options.rho) : 0;
  for (const double score : negatives) {
    if (options.zone == GateZone::kQuantile) {
      if (completions.empty() || score > bound) found.suppressed = false;
      continue;
    }
    const double rank = RankOf(StandingOf(score, pool), options.ties, /*behind_equals=*/false);
    const bool in_zone = rank > found.pool_size - found.zone_size;
    if (in_zone == (options.zone == GateZone::kOutside)) found.suppressed = false;
  }

  if (options.use_difficulty && !found.difficult) {
    verdict.reason = GateReason::kDifficulty;
  } else if (options.use_suppression && (found.negatives == 0 || found.negatives < options.negatives)) {
    verdict.reason = GateReason::kNegatives;
  } else if ((options.use_head && !found.in_head) || (options.use_suppression && !found.suppressed)) {
    verdict.reason = GateReason::kDiscriminability;
  } else {
    verdict.open = true;
    verdict.reason = GateReason::kOpen;
  }
  return verdict;
}

absl::Status ValidateGate(const GateOptions& options, int group_size) {
  if (!(options.tau >= 0 && options.tau <= 1)) {
    return absl::InvalidArgumentError(absl::StrCat("rl.gate.tau: want a fraction in [0, 1], got ", options.tau));
  }
  if (!(options.rho >= 0 && options.rho <= 1)) {
    return absl::InvalidArgumentError(absl::StrCat("rl.gate.rho: want a fraction in [0, 1], got ", options.rho));
  }
  if ((options.use_difficulty || options.use_head) && CeilOfShare(options.tau, group_size) < 1) {
    return absl::InvalidArgumentError(absl::StrCat("rl.gate.tau: the head has ceil(", options.tau, " * ", group_size,
                                                   ") = 0 places, so no target could be in it. Raise tau."));
  }
  if (!options.use_suppression) return absl::OkStatus();
  if (options.negatives < 1) {
    return absl::InvalidArgumentError(absl::StrCat("rl.gate.negatives: the suppression test needs at least 1, got ",
                                                   options.negatives, ". Or set rl.gate.use_suppression to false."));
  }
  if (options.zone == GateZone::kQuantile || options.zone == GateZone::kOutside) return absl::OkStatus();
  const int zone = options.zone == GateZone::kGroup ? CeilOfShare(options.rho, group_size)
                                                    : CeilOfShare(options.rho, group_size + 1 + options.negatives);
  if (options.negatives > zone) {
    return absl::InvalidArgumentError(
        absl::StrCat("rl.gate: ", options.negatives, " negatives cannot all rank in a bottom zone of ", zone,
                     " places (rho ", options.rho, ", group size ", group_size,
                     "), so no group would ever be admitted. Raise rho or ask for at most ", zone, " negatives."));
  }
  return absl::OkStatus();
}

}  // namespace sluice::learner
