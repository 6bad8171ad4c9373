// The admission gate of AdaGRPO: may this group's scores move the policy? A pure function of rollout diagnostics;
// logged truth (the NLL term) trains whatever it says.
//
// Source: AdaGRPO, arXiv 2606.08480. Its abstract names the two diagnostics; the definition below is our reading. The
// paper's letters: D is `difficult`, H `in_head`, B `suppressed`, C = H and B. K is the group size, here called G; tau
// and rho keep theirs. Thread-safe.
#ifndef SLUICE_LEARNER_OBJECTIVE_GATE_H_
#define SLUICE_LEARNER_OBJECTIVE_GATE_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
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
};
inline constexpr int kNumGateReasons = 12;

// "open", "fixed_open", "objective", "difficulty", "discriminability", "negatives", "stale", "reward_unavailable",
// "unsampled", "catalog_changed", "control_open", "control_closed": the reason codes of metrics, ledger and reports.
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
};

struct GateVerdict {
  bool open = false;
  GateReason reason = GateReason::kObjective;
  GateDiagnostics diagnostics;
};

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
// Tests whose switch is off pass. Reasons in this order: kDifficulty, kNegatives (fewer usable ones than
// options.negatives, or none, while suppression is asked), kDiscriminability. All diagnostics are filled whatever the
// verdict.
GateVerdict Decide(const GateInput& input, const GateOptions& options);

// Refuses options that can never admit: the bottom zone must have room for all negatives (zone by group:
// M <= ceil(rho G)). InvalidArgument names the field and the values that would do.
absl::Status ValidateGate(const GateOptions& options, int group_size);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_OBJECTIVE_GATE_H_
