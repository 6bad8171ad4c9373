#include "learner/train/rl_step.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/collective/sums.h"
#include "common/failpoint/failpoint.h"
#include "common/model/token_log_probs.h"
#include "common/status/status.h"
#include "common/tensor/device.h"
#include "learner/objective/policy_terms.h"
#include "learner/train/device_numbers.h"

namespace sluice::learner {
namespace {

// What a prediction row counts for: -weight * log p in each space, and what the actor recorded for its token.
struct WeightedRow {
  int64_t row = 0;  // of the hidden states that came back
  int64_t token = 0;
  int32_t node = 0;  // trie node of the prefix
  double nll_weight = 0;
  double grpo_weight = 0;
  bool recorded = false;
  double recorded_log_prob = 0;
};

// A branch before its rows are known.
struct PlannedBranch {
  absl::Span<const int32_t> tokens;
  double nll_weight = 0;  // of each token
  double grpo_weight = 0;
  double kl_weight = 0;
  const std::vector<double>* level_weights = nullptr;  // [L] beside grpo_weight; null: none
  double level_scale = 0;                              // 1 / B_grpo, of level_weights
  const std::vector<float>* recorded = nullptr;        // [L]; null: nothing to compare with
  const std::vector<float>* behavior = nullptr;        // [L]; the same of any version; null: not recorded
  const std::vector<double>* step_rewards = nullptr;   // [L]; null: its values are not trained
  bool first_token_right = false;                      // it is the target's

  bool has_weight() const { return nll_weight != 0 || has_policy_weight() || step_rewards != nullptr; }
  bool has_policy_weight() const { return grpo_weight != 0 || kl_weight != 0 || level_weights != nullptr; }
};

// Adds what the plan says of one completion, or of the target in the group, to its branch.
void AddPolicyWeights(const CompletionPlan& plan, const std::vector<float>& full, const std::vector<float>& in_trie,
                      uint64_t behavior_version, const RlStepSettings& settings, size_t levels, PlannedBranch* branch) {
  branch->grpo_weight = plan.token_weight / settings.grpo_groups;
  branch->kl_weight = plan.kl_weight / settings.grpo_groups;
  if (!plan.level_weights.empty()) {
    branch->level_weights = &plan.level_weights;
    branch->level_scale = 1 / settings.grpo_groups;
  }
  const std::vector<float>& log_probs = settings.grpo_space == LogProbSpace::kTrie ? in_trie : full;
  if (log_probs.size() != levels) return;
  branch->behavior = &log_probs;
  if (behavior_version == settings.learner_version) branch->recorded = &log_probs;
}

// The branches of a group that carry weight: the target once, for both terms, then the completions.
std::vector<PlannedBranch> PlanBranches(const Trie& trie, const RlGroup& group, const RlStepSettings& settings) {
  const size_t levels = static_cast<size_t>(trie.levels());
  PlannedBranch target;
  target.tokens = trie.TokensOfLeaf(group.target_leaf);
  if (settings.nll_groups > 0) target.nll_weight = group.plan.nll_token_weight / settings.nll_groups;
  std::vector<PlannedBranch> branches;
  const bool valued = settings.value.weight > 0 && !group.step_rewards.empty();
  for (size_t i = 0; i < group.plan.completions.size(); ++i) {
    const CompletionPlan& completion = group.plan.completions[i];
    const bool weighed = completion.token_weight != 0 || completion.kl_weight != 0 || !completion.level_weights.empty();
    if (!weighed && !valued) continue;
    const uint64_t version = group.group->behavior_version;
    if (completion.source == CompletionPlan::kTarget) {
      if (weighed) {
        AddPolicyWeights(completion, group.group->target_log_probs_full, group.group->target_log_probs_trie, version,
                         settings, levels, &target);
      }
      if (valued) {
        target.step_rewards = &group.step_rewards[i];
        target.first_token_right = true;
      }
      continue;
    }
    const Completion& sampled = group.group->completions[static_cast<size_t>(completion.source)];
    PlannedBranch branch;
    branch.tokens = sampled.tokens;
    if (weighed) {
      AddPolicyWeights(completion, sampled.log_probs_full, sampled.log_probs_trie, version, settings, levels, &branch);
    }
    if (valued) {
      branch.step_rewards = &group.step_rewards[i];
      branch.first_token_right = sampled.tokens[0] == target.tokens[0];
    }
    branches.push_back(branch);
  }
  if (target.has_weight()) branches.insert(branches.begin(), target);
  return branches;
}

at::Tensor ToTensor(const std::vector<double>& values, const at::Tensor& like) {
  return Upload(values, like.device()).to(like.scalar_type());
}

// Each row's log-probability of its token in both spaces, [R]; `in_trie` is `full` itself unless it is asked for.
struct RowLogProbs {
  at::Tensor full;
  at::Tensor in_trie;
};

RowLogProbs LogProbsOfRows(Policy& policy, const at::Tensor& hidden, const Trie& trie,
                           const std::vector<WeightedRow>& rows, bool any_trie) {
  const at::Tensor logits = policy.Logits(hidden);
  const auto choice = c10::make_intrusive<TokenChoice>();
  // Tokens that share a row share its prefix.
  std::vector<int32_t> node_of_row(static_cast<size_t>(logits.size(0)), Trie::kNone);
  for (const WeightedRow& row : rows) {
    choice->rows.push_back(row.row);
    choice->tokens.push_back(static_cast<int32_t>(row.token));
    node_of_row[static_cast<size_t>(row.row)] = row.node;
  }
  if (policy.placement().takes_device_path()) {
    if (!any_trie) {
      const at::Tensor full = TokenLogProbsByTensors(logits, *choice).full;
      return {full, full};
    }
    size_t widest = 1;
    for (const WeightedRow& row : rows) widest = std::max(widest, trie.ChildrenOf(row.node).tokens.size());
    const TokenLogProbs found = TokenLogProbsUnderNodes(logits, choice->rows, choice->tokens,
                                                        std::vector<int64_t>(node_of_row.begin(), node_of_row.end()),
                                                        static_cast<int64_t>(widest), *policy.TablesOf(trie));
    return {found.full, found.in_legal};
  }
  if (any_trie) {
    choice->legal_first.push_back(0);
    for (const int32_t node : node_of_row) {
      if (node != Trie::kNone) {
        const absl::Span<const int32_t> legal = trie.ChildrenOf(node).tokens;
        choice->legal.insert(choice->legal.end(), legal.begin(), legal.end());
      }
      choice->legal_first.push_back(static_cast<int64_t>(choice->legal.size()));
    }
  }
  const TokenLogProbs found = ChosenLogProbs(logits, choice);
  return {found.full, any_trie ? found.in_legal : found.full};
}

// log p_ref of the rows of branches with a KL weight, in the space of the GRPO term, by their index in `rows`; the
// reference passes over nothing else. Other rows are 0.
absl::StatusOr<std::vector<double>> ReferenceLogProbs(const TreeBatch& batch, const std::vector<PlannedBranch>& planned,
                                                      const std::vector<WeightedRow>& rows, const Trie& trie,
                                                      const RlStepSettings& settings) {
  std::vector<double> log_probs(rows.size(), 0);
  TreeBatch measured;
  std::vector<WeightedRow> measured_rows;
  std::vector<size_t> place;  // of each measured row in `rows`
  int32_t last_prompt = -1;
  size_t row = 0;
  for (size_t b = 0; b < planned.size(); ++b) {
    const size_t length = planned[b].tokens.size();
    if (planned[b].kl_weight != 0) {
      const int32_t prompt = batch.branches[b].prompt;
      if (prompt != last_prompt) measured.prompts.push_back(batch.prompts[static_cast<size_t>(prompt)]);
      last_prompt = prompt;
      measured.branches.push_back(batch.branches[b]);
      measured.branches.back().prompt = static_cast<int32_t>(measured.prompts.size()) - 1;
      measured.branches.back().tokens.resize(length);  // without what RlGroupLoss adds for the last value
      for (size_t t = 0; t < length; ++t) {
        measured_rows.push_back(rows[row + t]);
        place.push_back(row + t);
      }
    }
    row += length;
  }
  if (place.empty()) return log_probs;
  if (settings.reference == nullptr) {
    return absl::InvalidArgumentError("completions have a KL weight, but there is no reference policy to measure to");
  }
  const torch::NoGradGuard no_grad;
  SLUICE_ASSIGN_OR_RETURN(const TreeOutput output,
                          settings.reference->ForwardTree(measured, 0, 0, TreeRows::kPredictions));
  for (size_t i = 0; i < measured_rows.size(); ++i) measured_rows[i].row = output.prediction_rows[i];
  const bool in_trie = settings.grpo_space == LogProbSpace::kTrie;
  const RowLogProbs found = LogProbsOfRows(*settings.reference, output.hidden, trie, measured_rows, in_trie);
  const std::vector<double> values = FetchTogether({in_trie ? found.in_trie : found.full});
  for (size_t i = 0; i < place.size(); ++i) log_probs[place[i]] = values[i];
  return log_probs;
}

// Replaces the rows' policy weights by the objective's slopes at the pass's own log-probabilities, [R] in the space of
// the GRPO term, and reports the values.
absl::Status ApplyPolicyTerms(const std::vector<PlannedBranch>& planned, const std::vector<double>& log_probs,
                              const std::vector<double>& reference_log_probs, const RlStepSettings& settings,
                              std::vector<WeightedRow>* rows, RlLoss* result) {
  size_t row = 0;
  for (const PlannedBranch& branch : planned) {
    const size_t length = branch.tokens.size();
    if (branch.grpo_weight != 0) {
      std::vector<double> behavior;
      if (NeedsBehavior(settings.policy_loss.kind)) {
        if (branch.behavior == nullptr) {
          return absl::InvalidArgumentError(
              "the objective compares the policy with the one that sampled, but a completion came without its "
              "log-probabilities");
        }
        behavior.assign(branch.behavior->begin(), branch.behavior->end());
      }
      const TokenTerms terms = PolicyTerms(absl::MakeSpan(log_probs).subspan(row, length), behavior, branch.grpo_weight,
                                           settings.policy_loss);
      result->grpo_sum -= terms.value;
      for (size_t t = 0; t < length; ++t) (*rows)[row + t].grpo_weight = terms.slopes[t];
    }
    for (size_t t = 0; t < length; ++t) {
      WeightedRow& one = (*rows)[row + t];
      if (branch.level_weights != nullptr) {
        const double weight = (*branch.level_weights)[t] * branch.level_scale;
        one.grpo_weight += weight;
        result->grpo_sum -= weight;  // its ratio is 1
      }
      if (branch.kl_weight == 0) continue;
      const KlTerm kl = K3Kl(log_probs[row + t], reference_log_probs[row + t]);
      one.grpo_weight -= branch.kl_weight * kl.slope;
      result->kl_sum += kl.value;
      ++result->kl_tokens;
    }
    row += length;
  }
  return absl::OkStatus();
}

// Rows of a group in a pass, at most: its prompt, and the tokens of its branches that are inputs.
int64_t RowsOf(const RlGroup& group, const Trie& trie) {
  return static_cast<int64_t>(group.input.size()) +
         static_cast<int64_t>(group.plan.completions.size() + 1) *
             (group.step_rewards.empty() ? trie.levels() - 1 : trie.levels());
}

// All but the loss itself, which one backward pass has used up.
void AddSums(const RlLoss& part, RlLoss* total) {
  total->nll_sum += part.nll_sum;
  total->nll_tokens += part.nll_tokens;
  total->grpo_sum += part.grpo_sum;
  total->kl_sum += part.kl_sum;
  total->kl_tokens += part.kl_tokens;
  total->value_sum += part.value_sum;
  total->values += part.values;
  total->mismatch_sum += part.mismatch_sum;
  total->mismatch_max = std::max(total->mismatch_max, part.mismatch_max);
  total->compared += part.compared;
  total->rows += part.rows;
  total->on_device = JoinReportedSums(total->on_device, part.on_device);
}

// values: of RlLoss::on_device.
void AddFetched(const std::vector<double>& values, RlLoss* loss) {
  loss->nll_sum += values[0];
  loss->grpo_sum += values[1];
  loss->mismatch_sum += values[2];
  loss->mismatch_max = std::max(loss->mismatch_max, values[3]);
}

}  // namespace

void FetchSums(RlLoss* loss) {
  if (!loss->on_device.defined()) return;
  AddFetched(FetchTogether({loss->on_device}), loss);
  loss->on_device = at::Tensor();
}

absl::StatusOr<RlLoss> RlGroupLoss(Policy& policy, const Trie& trie, absl::Span<const RlGroup> groups,
                                   const RlStepSettings& settings) {
  TreeBatch batch;
  std::vector<PlannedBranch> planned;
  for (const RlGroup& group : groups) {
    const std::vector<PlannedBranch> branches = PlanBranches(trie, group, settings);
    if (branches.empty()) continue;
    const int32_t prompt = static_cast<int32_t>(batch.prompts.size());
    const int32_t anchor = static_cast<int32_t>(group.input.size()) - 1;
    batch.prompts.push_back(group.input);
    for (const PlannedBranch& branch : branches) {
      batch.branches.push_back({prompt, anchor, {branch.tokens.begin(), branch.tokens.end()}});
      // The value of the whole semantic ID is read at its last token, which is only computed if one more follows; that
      // one is never an input, so any will do.
      if (branch.step_rewards != nullptr) batch.branches.back().tokens.push_back(0);
      planned.push_back(branch);
    }
  }
  RlLoss result;
  if (planned.empty()) return result;
  SLUICE_ASSIGN_OR_RETURN(const TreeOutput output,
                          policy.ForwardTree(batch, settings.dropout, settings.dropout_seed, TreeRows::kPredictions));
  result.rows = static_cast<double>(output.computed_rows);

  std::vector<WeightedRow> rows;
  for (size_t b = 0; b < planned.size(); ++b) {
    int32_t node = Trie::kRoot;
    for (size_t t = 0; t < planned[b].tokens.size(); ++t) {
      WeightedRow row;
      row.row = output.prediction_rows[static_cast<size_t>(output.prediction_first[b]) + t];
      row.token = planned[b].tokens[t];
      row.node = node;
      row.nll_weight = planned[b].nll_weight;
      row.grpo_weight = planned[b].grpo_weight;
      if (planned[b].recorded != nullptr) {
        row.recorded = true;
        row.recorded_log_prob = (*planned[b].recorded)[t];
      }
      node = trie.Child(node, planned[b].tokens[t]);
      if (node == Trie::kNone) {
        return absl::InvalidArgumentError(absl::StrCat("a completion's token ", row.token, " at level ", t,
                                                       " is not in the catalog that the learner trains under"));
      }
      rows.push_back(row);
    }
  }

  const bool nll_full = settings.nll_space == LogProbSpace::kFull;
  const bool grpo_full = settings.grpo_space == LogProbSpace::kFull;
  bool any_trie = !nll_full;
  // Plain weights are the slopes themselves; anything else is a function of this pass's log-probabilities.
  bool plain = settings.policy_loss.kind == PolicyLossKind::kReinforce;
  for (const PlannedBranch& branch : planned) {
    any_trie = any_trie || (!grpo_full && branch.has_policy_weight());
    plain = plain && branch.kl_weight == 0 && branch.level_weights == nullptr;
  }
  const RowLogProbs found = LogProbsOfRows(policy, output.hidden, trie, rows, any_trie);
  // On a device plain weights leave all numbers there; slopes are the host's to compute, which must wait for this pass.
  const bool stays = plain && policy.placement().takes_device_path();
  std::vector<double> in_full, in_children;
  if (!stays) {
    in_full = FetchTogether({found.full, found.in_trie});
    in_children.assign(in_full.begin() + static_cast<int64_t>(rows.size()), in_full.end());
    in_full.resize(rows.size());
  }
  const std::vector<double>& grpo_log_probs = grpo_full ? in_full : in_children;
  if (!plain) {
    SLUICE_ASSIGN_OR_RETURN(const std::vector<double> reference,
                            ReferenceLogProbs(batch, planned, rows, trie, settings));
    SLUICE_RETURN_IF_ERROR(ApplyPolicyTerms(planned, grpo_log_probs, reference, settings, &rows, &result));
  }

  std::vector<double> full_weight, trie_weight;
  for (const WeightedRow& row : rows) {
    full_weight.push_back((nll_full ? row.nll_weight : 0) + (grpo_full ? row.grpo_weight : 0));
    trie_weight.push_back((nll_full ? 0 : row.nll_weight) + (grpo_full ? 0 : row.grpo_weight));
  }
  result.loss = -(ToTensor(full_weight, found.full) * found.full).sum();
  if (any_trie) result.loss = result.loss - (ToTensor(trie_weight, found.full) * found.in_trie).sum();

  std::vector<ValuedBranch> valued;
  for (size_t b = 0; b < planned.size(); ++b) {
    if (planned[b].step_rewards == nullptr) continue;
    const int64_t* first = output.prediction_rows.data() + output.prediction_first[b];
    valued.push_back({{first + 1, planned[b].tokens.size()}, *planned[b].step_rewards, planned[b].first_token_right});
  }
  if (!valued.empty()) {
    const ValueTermResult value = ValueTerm(policy, output.hidden, valued, settings.value);
    result.loss = result.loss + value.loss;
    result.value_sum = value.squared_errors;
    result.values = value.count;
  }

  // The terms apart, and the comparison with the actors, from the same numbers without gradient.
  if (stays) {
    ReportedRows reported;
    for (const WeightedRow& row : rows) {
      const bool compared = row.recorded && row.grpo_weight != 0;
      reported.nll.push_back(row.nll_weight != 0);
      reported.grpo.push_back(row.grpo_weight);
      reported.compared.push_back(compared);
      reported.recorded.push_back(row.recorded_log_prob);
      result.nll_tokens += row.nll_weight != 0;
      result.compared += compared;
    }
    result.on_device =
        ReportedSums(reported, nll_full ? found.full : found.in_trie, grpo_full ? found.full : found.in_trie);
    return result;
  }
  for (size_t r = 0; r < rows.size(); ++r) {
    const double grpo_log_prob = grpo_log_probs[r];
    if (plain) result.grpo_sum -= rows[r].grpo_weight * grpo_log_prob;
    if (rows[r].nll_weight != 0) {
      result.nll_sum -= nll_full ? in_full[r] : in_children[r];
      ++result.nll_tokens;
    }
    if (rows[r].recorded && rows[r].grpo_weight != 0) {
      const double difference = std::abs(grpo_log_prob - rows[r].recorded_log_prob);
      result.mismatch_sum += difference;
      result.mismatch_max = std::max(result.mismatch_max, difference);
      ++result.compared;
    }
  }
  return result;
}

absl::StatusOr<RlStepResult> RlStep(StepLanes& lanes, const Trie& trie, AdamW& optimizer, Collective& collective,
                                    absl::Span<const RlGroup> groups, const RlStepSettings& settings) {
  std::vector<int64_t> costs;
  for (const RlGroup& group : groups) costs.push_back(RowsOf(group, trie));
  const std::vector<LaneRange> ranges = SplitByCost(costs, lanes.count());
  std::vector<RlLoss> of_lanes(ranges.size());
  SLUICE_RETURN_IF_ERROR(lanes.Run([&](int lane) -> absl::Status {
    Policy& policy = lanes.policy(lane);
    policy.gradients().zero_();
    RlStepSettings part_settings = settings;
    part_settings.reference = lanes.reference(lane);
    const int64_t max_rows = settings.max_rows / lanes.count();
    const LaneRange range = ranges[static_cast<size_t>(lane)];
    size_t first = range.begin;
    while (first < range.end) {
      int64_t rows = 0;
      size_t count = 0;
      while (first + count < range.end) {
        const int64_t more = costs[first + count];
        if (count > 0 && rows + more > max_rows) break;
        rows += more;
        ++count;
      }
      // Parts and ranks draw dropout masks of their own.
      part_settings.dropout_seed = settings.dropout_seed + static_cast<uint64_t>(collective.rank()) * groups.size() +
                                   static_cast<uint64_t>(first);
      SLUICE_ASSIGN_OR_RETURN(const RlLoss part,
                              RlGroupLoss(policy, trie, groups.subspan(first, count), part_settings));
      if (part.loss.defined()) part.loss.backward();
      AddSums(part, &of_lanes[static_cast<size_t>(lane)]);
      first += count;
    }
    return absl::OkStatus();
  }));
  lanes.SumGradients();
  RlLoss total;
  for (const RlLoss& of_lane : of_lanes) AddSums(of_lane, &total);

  Policy& policy = lanes.policy(0);
  SLUICE_RETURN_IF_ERROR(SLUICE_FAILPOINT_STATUS("learner/before_all_reduce"));
  SLUICE_RETURN_IF_ERROR(collective.AllReduceSum(policy.gradients()));
  SLUICE_RETURN_IF_ERROR(SLUICE_FAILPOINT_STATUS("learner/after_all_reduce"));
  const at::Tensor norm = optimizer.by_tensors() ? optimizer.Update(settings.learning_rate) : at::Tensor();
  const std::vector<double> fetched = FetchTogether({total.on_device, norm});  // all that the step reads
  if (total.on_device.defined()) AddFetched(fetched, &total);
  std::vector<double> sums = {total.nll_sum, total.nll_tokens, total.grpo_sum,  total.mismatch_sum, total.compared,
                              total.rows,    total.kl_sum,     total.kl_tokens, total.value_sum,    total.values};
  // Each rank's maximum in a place of its own: a sum with zeros is a copy.
  const size_t maxima = sums.size();
  sums.resize(maxima + static_cast<size_t>(collective.world_size()), 0);
  sums[maxima + static_cast<size_t>(collective.rank())] = total.mismatch_max;
  SLUICE_RETURN_IF_ERROR(SumOverRanks(collective, &sums));
  const double* const s = sums.data();
  RlStepResult result;
  result.nll = s[1] > 0 ? s[0] / s[1] : 0;
  result.grpo_loss = s[2];
  result.compared = s[4];
  result.mismatch_mean = s[4] > 0 ? s[3] / s[4] : 0;
  result.mismatch_max = *std::max_element(s + maxima, s + sums.size());
  result.rows = s[5];
  result.kl = s[7] > 0 ? s[6] / s[7] : 0;
  result.kl_tokens = s[7];
  result.value_loss = s[9] > 0 ? s[8] / s[9] : 0;
  result.values = s[9];
  if (norm.defined()) {
    result.gradient_norm = fetched.back();
    SLUICE_RETURN_IF_ERROR(optimizer.Settle(result.gradient_norm));
    return result;
  }
  const ParallelFor on_lanes = [&](int64_t size, int64_t grain, const std::function<void(int64_t, int64_t)>& work) {
    lanes.ForRange(size, grain, work);
  };
  SLUICE_ASSIGN_OR_RETURN(result.gradient_norm, optimizer.Step(settings.learning_rate, on_lanes));
  return result;
}

absl::StatusOr<RlStepResult> RlStep(Policy& policy, const Trie& trie, AdamW& optimizer, Collective& collective,
                                    absl::Span<const RlGroup> groups, const RlStepSettings& settings) {
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<StepLanes> lane, StepLanes::Create(&policy, settings.reference, 1));
  return RlStep(*lane, trie, optimizer, collective, groups, settings);
}

}  // namespace sluice::learner
