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

// The shares of pairs. Own completions count with their own scores, the target's copy too: that test knows no label.
void Compare(const GateInput& input, GateTies ties, GateDiagnostics* found) {
  std::unordered_set<int32_t> seen;
  std::vector<double> own, others;  // distinct completions; those that are not the target
  for (size_t i = 0; i < input.completion_leaves.size(); ++i) {
    if (!seen.insert(input.completion_leaves[i]).second) continue;
    own.push_back(input.completion_scores[i]);
    if (input.completion_leaves[i] != input.target_leaf) others.push_back(input.completion_scores[i]);
  }
  seen.insert(input.target_leaf);
  const std::unordered_set<int32_t> in_history(input.history_leaves.begin(), input.history_leaves.end());
  std::vector<double> cross, strange;  // usable negatives; those that the history does not hold
  for (size_t i = 0; i < input.negative_leaves.size(); ++i) {
    if (!seen.insert(input.negative_leaves[i]).second) continue;
    cross.push_back(input.negative_scores[i]);
    if (!in_history.contains(input.negative_leaves[i])) strange.push_back(input.negative_scores[i]);
  }
  found->history = OrderedShare(input.history_scores, strange, ties);
  found->own_cross = OrderedShare(own, cross, ties);
  found->target_place = OrderedShare({&input.target_score, 1}, others, ties);
}

// Every number that a gate of any kind may look at, but those of the state.
GateDiagnostics Diagnose(const GateInput& input, const GateOptions& options) {
  const size_t group_size = input.completion_leaves.size();
  SLUICE_CHECK(input.completion_scores.size() == group_size, "one score a completion");
  SLUICE_CHECK(input.negative_scores.size() == input.negative_leaves.size(), "one score a negative");
  SLUICE_CHECK(input.history_scores.size() == input.history_leaves.size(), "one score an item of the history");
  const bool teacher_forced = options.difficulty == DifficultyMode::kTeacherForced;
  SLUICE_CHECK(!teacher_forced || input.completion_log_probs.size() == group_size, "one log-probability a completion");

  GateDiagnostics found;
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

  found.discriminable = (found.in_head || !options.use_head) && (found.suppressed || !options.use_suppression);
  if (input.has_scores) Compare(input, options.ties, &found);
  return found;
}

bool LacksNegatives(const GateDiagnostics& found, const GateOptions& options) {
  return options.use_suppression && (found.negatives == 0 || found.negatives < options.negatives);
}

// The verdict of AdaGRPO's tests on the diagnostics.
GateVerdict DecideAdaGrpo(const GateOptions& options, GateVerdict verdict) {
  const GateDiagnostics& found = verdict.diagnostics;
  if (options.use_difficulty && !found.difficult) {
    verdict.reason = GateReason::kDifficulty;
  } else if (LacksNegatives(found, options)) {
    verdict.reason = GateReason::kNegatives;
  } else if (!found.discriminable) {
    verdict.reason = GateReason::kDiscriminability;
  } else {
    verdict.open = true;
    verdict.reason = GateReason::kOpen;
  }
  return verdict;
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
    case GateReason::kReliability:
      return "reliability";
    case GateReason::kHistory:
      return "history";
    case GateReason::kTruth:
      return "truth";
  }
  return "unknown";
}

bool IsOperational(GateReason reason) {
  return reason == GateReason::kStale || reason == GateReason::kRewardUnavailable || reason == GateReason::kUnsampled ||
         reason == GateReason::kCatalogChanged;
}

std::optional<double> GateThreshold(const GateOptions& options) {
  if (options.threshold) return options.threshold;
  switch (options.kind) {
    case GateKind::kHistory:
    case GateKind::kOwnCross:
      return 0.9;
    case GateKind::kCombined:
      return 0.8;
    case GateKind::kOracle:
      return 0.5;  // between 0 and 1
    case GateKind::kAdaGrpo:
    case GateKind::kPooled:
      break;
  }
  return std::nullopt;
}

std::optional<double> OrderedShare(absl::Span<const double> above, absl::Span<const double> below, GateTies ties) {
  if (above.empty() || below.empty()) return std::nullopt;
  double right = 0;  // whole and half numbers: the sum is exact in any order
  for (const double a : above) {
    for (const double b : below) right += a > b ? 1 : a == b && ties == GateTies::kAverage ? 0.5 : 0;
  }
  return right / (static_cast<double>(above.size()) * static_cast<double>(below.size()));
}

GateVerdict Decide(const GateInput& input, const GateOptions& options, const GateState& state) {
  GateVerdict verdict;
  verdict.diagnostics = Diagnose(input, options);
  GateDiagnostics& found = verdict.diagnostics;
  if (GatePools(options)) found.pooled = state.Estimate(input.region, options.pool_groups);
  std::optional<double> threshold = GateThreshold(options);
  // Without something to compare with.
  GateReason lacking = GateReason::kNegatives;
  switch (options.kind) {
    case GateKind::kAdaGrpo:
      return DecideAdaGrpo(options, verdict);
    case GateKind::kHistory:
      verdict.reliability = found.history;
      if (input.history_scores.empty()) lacking = GateReason::kHistory;
      break;
    case GateKind::kOwnCross:
      verdict.reliability = found.own_cross;
      break;
    case GateKind::kPooled: {
      const std::optional<GateState::Range> range = state.Estimates(options.pool_groups);
      if (!threshold && range) threshold = (range->low + range->high) / 2;
      if (!found.pooled || !threshold) return DecideAdaGrpo(options, verdict);
      verdict.reliability = found.pooled;
      break;
    }
    case GateKind::kCombined: {
      const bool by_history = options.single_test == GateSingleTest::kHistory;
      const std::optional<double> single = by_history ? found.history : found.own_cross;
      if (by_history && input.history_scores.empty()) lacking = GateReason::kHistory;
      const double standing = state.Standing(input.region, options.pool_groups).value_or(0.5);
      if (single) verdict.reliability = (1 - options.pool_weight) * *single + options.pool_weight * standing;
      break;
    }
    case GateKind::kOracle:
      lacking = GateReason::kTruth;
      if (input.reliable) verdict.reliability = *input.reliable ? 1 : 0;
      break;
  }
  verdict.open = false;
  if (options.use_difficulty && !found.difficult) {
    verdict.reason = GateReason::kDifficulty;
  } else if (!verdict.reliability) {
    verdict.reason = lacking;
  } else if (!(*verdict.reliability > *threshold)) {
    verdict.reason = GateReason::kReliability;
  } else {
    verdict.open = true;
    verdict.reason = GateReason::kOpen;
  }
  return verdict;
}

GateObservation ObservationOf(const GateInput& input, const GateDiagnostics& found, const GateOptions& options) {
  if (!found.target_place || LacksNegatives(found, options)) return {};
  return {input.region, found.discriminable ? 1.0 : 0.0, *found.target_place};
}

absl::Status ValidateGate(const GateOptions& options, int group_size) {
  if (!(options.tau >= 0 && options.tau <= 1)) {
    return absl::InvalidArgumentError(absl::StrCat("rl.gate.tau: want a fraction in [0, 1], got ", options.tau));
  }
  if (!(options.rho >= 0 && options.rho <= 1)) {
    return absl::InvalidArgumentError(absl::StrCat("rl.gate.rho: want a fraction in [0, 1], got ", options.rho));
  }
  const bool asks_head = options.use_head && (options.kind == GateKind::kAdaGrpo || GatePools(options));
  if ((options.use_difficulty || asks_head) && CeilOfShare(options.tau, group_size) < 1) {
    return absl::InvalidArgumentError(absl::StrCat("rl.gate.tau: the head has ceil(", options.tau, " * ", group_size,
                                                   ") = 0 places, so no target could be in it. Raise tau."));
  }
  if (options.threshold && !(*options.threshold >= 0 && *options.threshold < 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("rl.gate.threshold: no share is above ", *options.threshold, "; want a number in [0, 1)"));
  }
  const bool compares =
      options.kind == GateKind::kHistory || options.kind == GateKind::kOwnCross || options.kind == GateKind::kCombined;
  if (compares && options.negatives < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "rl.gate.negatives: this kind of gate compares with other samples' rollouts and needs at least 1, got ",
        options.negatives));
  }
  const bool tests_target = options.kind == GateKind::kAdaGrpo || GatePools(options);
  if (!tests_target || !options.use_suppression) return absl::OkStatus();
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
