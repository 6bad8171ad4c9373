// One policy update from judged groups: target and completions of a prompt as branches of one shared-prefix pass.
//
//   loss = 1 / B_nll * sum_g n_g * -sum_t log p(y*_gt)  +  1 / B_grpo * sum_g -sum_i w_gi * sum_t log p(o_git)
//
// with n_g and w_gi from the judge (learner/objective/judge.h): AdaGRPO, GRPO, NLL and their mixtures differ only in
// these weights. Log-probabilities of each term are over the full vocabulary or renormalised over the legal children.
//
// Objectives with ratios put g(r_git, w_git) in place of w_gi log p, and a KL to a reference policy adds
// k_gi * k3(p, p_ref): both enter as the slopes that learner/objective/policy_terms.h computes from the pass's own
// log-probabilities, so that the pass stays a weighted sum.
#ifndef SLUICE_LEARNER_TRAIN_RL_STEP_H_
#define SLUICE_LEARNER_TRAIN_RL_STEP_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/catalog/trie.h"
#include "common/collective/collective.h"
#include "common/model/policy.h"
#include "common/types/group.h"
#include "learner/objective/judge.h"
#include "learner/options/options.h"
#include "learner/train/adamw.h"
#include "learner/train/step_lanes.h"
#include "learner/train/value_term.h"

namespace sluice::learner {

// A judged group of this rank.
struct RlGroup {
  PromptInput input;
  int32_t target_leaf = -1;
  const ScoredGroup* group = nullptr;  // null: unsampled; outlives the step
  GroupPlan plan;
  // Of the plan's completions, for the value loss: [members][L]; empty: the group has none.
  std::vector<std::vector<double>> step_rewards;
};

struct RlStepSettings {
  LogProbSpace grpo_space = LogProbSpace::kTrie;
  LogProbSpace nll_space = LogProbSpace::kFull;
  // Ratios other than kReinforce's need what the actors recorded for every completion with weight, whatever version
  // they had: InvalidArgument without.
  PolicyLossOptions policy_loss;
  // What the KL is measured to; must outlive the step and be of the policy's layout. Null: no completion may have a
  // KL weight.
  Policy* reference = nullptr;
  // The value loss, added to the others; its values are those of every level of every member with step rewards.
  ValueTermSettings value;
  // B_nll and B_grpo over all ranks; a term whose denominator is 0 must have no weights.
  double nll_groups = 0;
  double grpo_groups = 0;
  double learning_rate = 0;
  double dropout = 0;
  uint64_t dropout_seed = 0;
  // Groups are passed through the policy in parts of at most this many rows in all lanes together (one group a lane
  // always fits): bounds memory.
  int64_t max_rows = 16384;
  // Version of the weights that the step starts from, to compare log-probabilities with the actors' of that version.
  uint64_t learner_version = 0;
};

// Sums over all ranks.
struct RlStepResult {
  double nll = 0;            // mean NLL a target token, in nats, over groups with an NLL weight
  double grpo_loss = 0;      // the second term of the loss, KL not included; with ratios: minus the objective's value
  double kl = 0;             // mean k3 a token, in nats, over tokens with a KL weight
  double kl_tokens = 0;      // 0: no KL was asked for
  double value_loss = 0;     // mean squared error of a value, unweighted
  double values = 0;         // 0: no value loss was asked for
  double gradient_norm = 0;  // before clipping
  double rows = 0;           // trunk and branch rows that were computed
  // |log p_learner - log p_actor| of tokens sampled under learner_version, in the space of the GRPO term; only tokens
  // with a weight are compared. compared == 0: nothing to compare.
  double mismatch_mean = 0;
  double mismatch_max = 0;  // over all ranks
  double compared = 0;
};

// The differentiable loss of some groups (this rank's share, denominators applied), for tests and for RlStep.
struct RlLoss {
  // Its gradient is the objective's. Its value too, unless there are ratios, a KL or a value loss, whose slopes alone
  // are in it.
  at::Tensor loss;
  double nll_sum = 0;
  double nll_tokens = 0;
  double grpo_sum = 0;
  double kl_sum = 0;  // of k3, unweighted
  double kl_tokens = 0;
  double value_sum = 0;  // of squared errors
  double values = 0;
  double mismatch_sum = 0;
  double mismatch_max = 0;
  double compared = 0;
  double rows = 0;
  // What is to be added to nll_sum, grpo_sum, mismatch_sum and (as a maximum) mismatch_max, in this order, where it was
  // computed on a device and is not read yet. [4] double; undefined otherwise.
  at::Tensor on_device;
};
// Reads what is still on the device into the sums.
void FetchSums(RlLoss* loss);
absl::StatusOr<RlLoss> RlGroupLoss(Policy& policy, const Trie& trie, absl::Span<const RlGroup> groups,
                                   const RlStepSettings& settings);

// Forward and backward in parts, one all-reduce of the gradient arena, clip, AdamW. Collective: every rank calls it
// with the same settings, also one without groups. The lanes share the groups; their reference policies take the place
// of settings.reference, and optimizer is of lane 0's arenas. Where the policy takes the path of devices and the
// optimizer updates by tensors, the host reads once, at the end; objectives with ratios, step rewards or a KL once a
// part more, and with a KL twice, as the slopes are computed on the host.
absl::StatusOr<RlStepResult> RlStep(StepLanes& lanes, const Trie& trie, AdamW& optimizer, Collective& collective,
                                    absl::Span<const RlGroup> groups, const RlStepSettings& settings);
// The same in one lane.
absl::StatusOr<RlStepResult> RlStep(Policy& policy, const Trie& trie, AdamW& optimizer, Collective& collective,
                                    absl::Span<const RlGroup> groups, const RlStepSettings& settings);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_TRAIN_RL_STEP_H_
