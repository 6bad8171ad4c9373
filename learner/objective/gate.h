// Admission gates: may this group's scores move the policy? One family of pure functions of rollout diagnostics, one
// interface and one state; logged truth (the NLL term) trains whatever they say.
//
//   kAdaGrpo   the paper's two tests of the target: in the ranker's head, cross-sample negatives at the bottom
//   kHistory   the ranker orders the user's own history, each item scored leave-one-out, above other samples' rollouts
//   kOwnCross  it orders the user's own rollouts above those of others: no label
//   kPooled    its reliability in the region of the prompt, from the steps before (gate_state.h)
//   kCombined  one of the single-sample tests and the standing of the region, weighted
//   kOracle    the truth of a generated data set, as an upper bound
//
// Source: AdaGRPO, arXiv 2606.08480. Its abstract names the two diagnostics; the definition below is our reading. The
// paper's letters: D is `difficult`, H `in_head`, B `suppressed`, C = H and B. K is the group size, here called G; tau
// and rho keep theirs. The other kinds are our own. Thread-safe.
#ifndef SLUICE_LEARNER_OBJECTIVE_GATE_H_
#define SLUICE_LEARNER_OBJECTIVE_GATE_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "learner/objective/gate_state.h"
#include "learner/options/options.h"

namespace sluice::learner {

enum class GateReason : int {
  kOpen = 0,           // every test that is asked passed
  kFixedOpen,          // the objective has no gate and uses the scores of every group
  kObjective,          // the objective uses no scores
  kDifficulty,         // the policy already ranks the target in its head
  kDiscriminability,   // the ranker does not: target outside its head, or a cross-sample negative not at the bottom
  kNegatives,          // too few cross-sample negatives left to ask
  kStale,              // sampled more than S versions ago
  kRewardUnavailable,  // no score, or an unusable one
  kUnsampled,          // no completions came within the attempts
  kCatalogChanged,     // sampled under another catalog
  kControlOpen,        // a control of the gate let the scores in, whatever the tests said
  kControlClosed,      // a control kept them out
  kReliability,        // the estimate of the ranker's reliability is not above the threshold
  kHistory,            // no history scores to test the ranker with
  kTruth,              // the oracle does not know this prompt
};
inline constexpr int kNumGateReasons = 15;

// "open", "fixed_open", "objective", "difficulty", "discriminability", "negatives", "stale", "reward_unavailable",
// "unsampled", "catalog_changed", "control_open", "control_closed", "reliability", "history", "truth": the reason codes
// of metrics, ledger and reports.
absl::string_view GateReasonName(GateReason reason);

// Closed because something did not work (stale, unscored, unsampled, other catalog), not because the gate said so.
// Such groups are counted against the job's budget for operational closures.
bool IsOperational(GateReason reason);

// One group as the gate sees it. Leaves identify semantic IDs; all numbers finite.
struct GateInput {
  std::vector<int32_t> completion_leaves;    // [G], by the policy's preference, most probable first; may repeat
  std::vector<double> completion_log_probs;  // [G] sequence log-probabilities; teacher-forced difficulty only
  std::vector<double> completion_scores;     // [G]
  int32_t target_leaf = -1;
  double target_log_prob = 0;  // teacher-forced difficulty only
  double target_score = 0;
  std::vector<int32_t> negative_leaves;  // [M or fewer] drawn from other prompts of the lease block
  std::vector<double> negative_scores;   // same length
  std::vector<int32_t> history_leaves;   // of the prompt's own items that were scored, each without itself
  std::vector<double> history_scores;    // same length
  bool has_scores = true;                // false: the numbers above mean nothing, nobody was asked
  int32_t region = kNoRegion;
  std::optional<bool> reliable;  // truth; absent: unknown
};

struct GateDiagnostics {
  int group_size = 0;      // G
  int head_size = 0;       // ceil(tau G): places that count as the head, on both sides
  int zone_size = 0;       // places of the bottom zone; 0 under a quantile
  int pool_size = 0;       // |completions U target U negatives|, without repeats
  int negatives = 0;       // usable ones: neither the target, nor a completion, nor repeated
  double rank_policy = 0;  // of the target; G + 1 if the list lacks it
  double rank_ranker = 0;  // of the target in the pool; half-integral under average ties
  bool difficult = false;
  bool in_head = false;
  bool suppressed = false;
  // AdaGRPO's test of the ranker: in_head and suppressed, of those that are asked.
  bool discriminable = false;
  // Shares of pairs that the ranker orders rightly, in [0, 1]; none without scores or without a pair. Ties: wrong under
  // kPessimistic, half right under kAverage.
  std::optional<double> history;       // (own history item, usable negative that is not in the history)
  std::optional<double> own_cross;     // (distinct completion, usable negative)
  std::optional<double> target_place;  // (target, distinct completion)
  std::optional<double> pooled;        // the region's estimate, from the state before the step
};

struct GateVerdict {
  bool open = false;
  GateReason reason = GateReason::kObjective;
  // How reliable the ranker looks for this group, in [0, 1]; none if the kind has no estimate, or nothing to make it
  // of.
  std::optional<double> reliability;
  GateDiagnostics diagnostics;
};

// The kind's own threshold, if options name none; none for kPooled, whose midpoint moves.
std::optional<double> GateThreshold(const GateOptions& options);

// Decides one group:
//   difficult   rank_policy > ceil(tau G). rank_policy in list mode: the target's place among the distinct completions,
//               G + 1 if absent; teacher-forced: 1 + #{o != y*: log p(o) > log p(y*)}
//   in_head     rank_ranker(y*) <= ceil(tau G), ranks over the pool S = O U {y*} U N; head_pool kGroup: O U {y*}
//   suppressed  rank_ranker(n) > |S| - zone for all n in N; zone = ceil(rho G) (group) or ceil(rho |S|) (pool).
//               kQuantile: r(n) <= the (1 - rho) quantile of r over the distinct completions, the
//               ceil((1 - rho) |O|)-th smallest (at least the first). kOutside, for ablation alone: the digest's other
//               wording, every negative OUTSIDE of the last ceil(rho G) places
// The target scores as target_score also where a completion is the same semantic ID. Ties: pessimistic puts the target
// behind its equals and each negative before its own; average takes the mean of the tied places.
//
// Tests whose switch is off pass. Reasons of kAdaGrpo in this order: kDifficulty, kNegatives (fewer usable ones than
// options.negatives, or none, while suppression is asked), kDiscriminability.
//
// The other kinds ask difficulty first too, then open if their estimate is above the threshold, and close with
// kReliability otherwise:
//   kHistory   `history`; kHistory without scored items, kNegatives without a negative to compare with
//   kOwnCross  `own_cross`; kNegatives without a negative
//   kPooled    `pooled`, the region's estimate; without a threshold of its own above the middle between the lowest and
//              the highest region. While the region has too few groups, or no two regions differ, AdaGRPO's test
//              decides, with its reasons and without an estimate
//   kCombined  (1 - w) s + w z: w = pool_weight, s the single-sample test, z the region's standing between the lowest
//              (0) and the highest (1) estimate, .5 as long as it has none. With the defaults w = .25 and threshold .8
//              a region without standing asks s > .9. Closed as its single-sample test if that has nothing to compare
//   kOracle    1 if reliable, 0 if not; kTruth if that is not known
// All diagnostics are filled whatever the verdict.
GateVerdict Decide(const GateInput& input, const GateOptions& options, const GateState& state = {});

// What a judged group adds to the state; nothing (kNoRegion) without scores, without a completion but the target, or
// with too few negatives for AdaGRPO's test.
GateObservation ObservationOf(const GateInput& input, const GateDiagnostics& found, const GateOptions& options);

// Share of pairs (a, b) with above[a] > below[b]; ties count as `ties` says. None without pairs.
std::optional<double> OrderedShare(absl::Span<const double> above, absl::Span<const double> below, GateTies ties);

// Refuses options that can never admit: the bottom zone must have room for all negatives (zone by group:
// M <= ceil(rho G)), a test by negatives must have some, a threshold of 1 is above every share. InvalidArgument names
// the field and the values that would do.
absl::Status ValidateGate(const GateOptions& options, int group_size);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_OBJECTIVE_GATE_H_
