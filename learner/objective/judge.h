// Judges groups: reward, gate, advantages, and the weights that make the loss of a step a plain weighted sum.
//
//   loss = sum_g [ n_g * -sum_t log p_space(y*_gt)  -  sum_i w_gi * sum_t log p_space(o_git) ]
//
// with n_g and w_gi from here, divided by the global counts that the training step knows. Because the policy is
// updated once on each group, AdaGRPO's and ReRe's ratio pi / sg(pi) is 1 and its gradient is REINFORCE with a token
// mean a sequence: w_gi = lambda * alpha_g * A_gi / (G * |o_gi|); TokenMean::kStep (DAPO) leaves the division by all
// tokens of the step to the training step: w_gi = lambda * alpha_g * A_gi. Mixing::kConvex takes what the scores get
// from the NLL: n_g = (1 - lambda * alpha_g) / L.
//
// Source: AdaGRPO, arXiv 2606.08480 (additive form of NLL and gated GRPO; the convex one is a reading of it).
// Pure functions on plain data; thread-safe.
#ifndef SLUICE_LEARNER_OBJECTIVE_JUDGE_H_
#define SLUICE_LEARNER_OBJECTIVE_JUDGE_H_

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/types/group.h"
#include "learner/objective/cells.h"
#include "learner/objective/gate.h"
#include "learner/objective/leaf_vectors.h"
#include "learner/options/options.h"

namespace sluice::learner {

// One group and the present, as the judge sees them.
struct JudgeInput {
  uint64_t ordinal = 0;
  const ScoredGroup* group = nullptr;  // null: unsampled. Outlives the call
  int32_t target_leaf = -1;            // trie leaf of the logged item
  // [L] its tokens; only read by rewards and advantages that compare prefixes, which need them.
  absl::Span<const int32_t> target_tokens = {};
  // Of group->history_items, in that order. What the gate may ask besides.
  absl::Span<const int32_t> history_leaves = {};
  int32_t region = kNoRegion;
  std::optional<bool> reliable = {};  // truth of a generated data set; absent: unknown
  bool reward_outage = false;         // without a group, because nobody could have scored it
};
struct JudgeContext {
  uint64_t learner_version = 0;          // of the weights that this step starts from
  std::string catalog_version;           // trie digest of the learner
  int levels = 0;                        // L, tokens of a semantic ID
  uint64_t random_ranker_seed = 0;       // of the job; for the control of the stratified analysis
  const LeafVectors* vectors = nullptr;  // of all leaves; read by the semantic reward, which needs them
  // As the step before left it; null: nothing was seen yet. Outlives the call.
  const GateState* gate_state = nullptr;
};

// One member of the group in the GRPO term.
struct CompletionPlan {
  static constexpr int kTarget = -1;
  int source = kTarget;  // index into the group's completions, or kTarget: the logged target put into the group
  double reward = 0;
  double advantage = 0;  // after negative_weight and window
  // Weights of one token of an admitted group, before lambda: of the advantage, of the KL, of each level's siblings.
  double unit_weight = 0;
  double unit_kl = 0;
  std::vector<double> unit_levels;  // [L] or empty
  // What the step trains with: those times lambda and the group's admission (SetAdmission).
  double token_weight = 0;  // w_gi, of each of its tokens; 0 under a closed gate
  double kl_weight = 0;     // of each token's KL to the reference policy, times beta; 0 under a closed gate
  // Added to token_weight token by token, for terms whose advantage differs by level (siblings); [L] or empty.
  std::vector<double> level_weights;
};

struct GroupPlan {
  uint64_t ordinal = 0;
  GateVerdict verdict;
  GateDiagnostics random;       // with has_scores under a gate: the same tests of a ranker that scores at random
  std::string error;            // why scores could not be used; empty otherwise
  uint64_t staleness = 0;       // learner version minus behaviour version; 0 if unsampled
  double nll_unit = 0;          // of each of the target's tokens: 1 / L (mean) or 1 (sum); 0 under GRPO alone
  double nll_token_weight = 0;  // n_g: nll_unit, less what convex mixing gives to the scores
  double admission = 0;         // alpha_g: 1 open, 0 closed, between under a control of equal dose
  bool gate_open = false;       // what the gate itself said, if a control decides
  GateReason gate_reason = GateReason::kObjective;  // and why; the verdict's own without a control
  GateObservation observation;                      // what the group adds to the state of the gate
  bool has_scores = false;                          // from the ranker
  bool has_rewards = false;
  double reward_mean = 0;  // over the completions as sampled
  double target_reward = 0;
  bool zero_advantage = false;              // rewards there, and all equal; ReCast: no pair
  bool target_sampled = false;              // the policy found the target by itself
  int distinct = 0;                         // different semantic IDs among the completions
  std::vector<CompletionPlan> completions;  // [G] if has_rewards, else empty
};

// Judges one group by its objective:
//   gated      the gate decides; NLL on every group
//   nll_only   kObjective: no scores wanted, so neither age nor outage matters
//   grpo_only  kFixedOpen; no NLL
//   mixture    kFixedOpen; NLL on every group
// Before any of the three that use scores, in this order: kUnsampled, kCatalogChanged, kStale (also a behaviour
// version above the learner's: another timeline), kRewardUnavailable.
//
// A group is scored only if NeedsScores(options) says so; rule rewards need no ranker and know no kRewardUnavailable.
//
// Rewards: kRanker the score of the head, after floor and positive_to_max; kRule, kRanking (rule + ranking),
// kRankingOnly, kPrefix and kSemantic compare with the target over the members, the inserted target included.
//
// target_in_group: a group that lacks the target gets it in place of its last completion (beside it, if the group has
// fewer than group_size; ReCast: in place of the least similar one), with the target's score as reward; gate and
// diversity see the group as sampled. A target without log-probabilities of the actor stays out where a ratio needs
// them. Samples and what a search found are ordered by sequence log-probability (full vocabulary) for the gate's list
// and the ranking reward, beams come in order.
//
// InvalidArgument: no target, an empty group, or lengths that contradict each other (intake should have refused it).
// InvalidArgument also: no target tokens where prefixes are compared, no vectors where those are.
absl::StatusOr<GroupPlan> Judge(const JudgeInput& input, const RlOptions& options, const JudgeContext& context);

// Sets the weights of a plan with rewards for one admission in [0, 1].
void SetAdmission(double admission, const RlOptions& options, GroupPlan* plan);

// Sums over judged groups; sums of several ranks add up.
struct JudgeStatistics {
  double groups = 0;
  std::array<double, kNumGateReasons> by_reason{};
  double admitted = 0;   // sum of admissions: groups whose gate is open, fixed or not
  double judged = 0;     // with a gate's own verdict
  double gate_open = 0;  // of those, what the gate itself would admit
  double tokens = 0;     // of all members of groups with rewards
  double admitted_tokens = 0;
  double degraded = 0;  // closed for operational reasons
  double with_rewards = 0;
  double zero_advantage = 0;  // of with_rewards
  double reward_sum = 0;      // of the groups' means
  double target_reward_sum = 0;
  double sampled = 0;  // groups with completions
  double target_sampled = 0;
  double distinct_share_sum = 0;  // per sampled group: different semantic IDs / G (ReRe's Div)
  double staleness_sum = 0;       // over sampled groups
  // The 2 x 2 of difficulty and discriminability, over groups that the gate judged: [difficult][discriminable].
  std::array<std::array<double, 2>, 2> difficulty_by_discriminability{};
  CellSums cells;  // over the same groups

  void Add(const GroupPlan& plan, const ScoredGroup* group);

  void Add(const JudgeStatistics& other);

  // By name ("groups", "reason/open", "difficult_1_discriminable_0", ...) behind `prefix`, for a checkpoint's numbers
  // and for results. Restore takes what is there and sets the rest to 0.
  void Save(absl::string_view prefix, std::map<std::string, double>* numbers) const;
  void Restore(absl::string_view prefix, const std::map<std::string, double>& numbers);

  // Flat, for an all-reduce; the order is stable within a build.
  std::vector<double> ToVector() const;
  static JudgeStatistics FromVector(absl::Span<const double> values);

  double admission_rate() const { return Share(admitted, groups); }
  // Of those that were not closed for operational reasons: what the gate admits, whatever the operations do.
  double asked() const { return groups - degraded; }
  double asked_admission_rate() const { return Share(admitted, asked()); }
  double gate_open_rate() const { return Share(gate_open, judged); }
  double degraded_share() const { return Share(degraded, groups); }
  double zero_advantage_share() const { return Share(zero_advantage, with_rewards); }
  double reward_mean() const { return Share(reward_sum, with_rewards); }
  double target_reward_mean() const { return Share(target_reward_sum, with_rewards); }
  double target_sampled_share() const { return Share(target_sampled, sampled); }
  double diversity() const { return Share(distinct_share_sum, sampled); }
  double mean_staleness() const { return Share(staleness_sum, sampled); }

 private:
  // 0 of nothing is 0 here: a share is read beside its count.
  static double Share(double part, double whole) { return whole > 0 ? part / whole : 0; }
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_OBJECTIVE_JUDGE_H_
