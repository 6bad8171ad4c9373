#include "learner/train/rl_step.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/collective/sums.h"
#include "common/status/status.h"

namespace sluice::learner {
namespace {

// What a prediction row counts for: -weight * log p in each space, and what the actor recorded for its token.
struct WeightedRow {
  int64_t row = 0;  // of the hidden states
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
  const std::vector<float>* recorded = nullptr;  // [L]; null: nothing to compare with
};

const std::vector<float>* Recorded(const std::vector<float>& full, const std::vector<float>& trie,
                                   const RlStepSettings& settings, uint64_t behavior_version, size_t levels) {
  const std::vector<float>& log_probs = settings.grpo_space == LogProbSpace::kTrie ? trie : full;
  if (behavior_version != settings.learner_version || log_probs.size() != levels) return nullptr;
  return &log_probs;
}

// The branches of a group that carry weight: the target once, for both terms, then the completions.
std::vector<PlannedBranch> PlanBranches(const Trie& trie, const RlGroup& group, const RlStepSettings& settings) {
  const size_t levels = static_cast<size_t>(trie.levels());
  PlannedBranch target;
  target.tokens = trie.TokensOfLeaf(group.target_leaf);
  if (settings.nll_groups > 0) target.nll_weight = group.plan.nll_token_weight / settings.nll_groups;
  std::vector<PlannedBranch> branches;
  for (const CompletionPlan& completion : group.plan.completions) {
    if (completion.token_weight == 0) continue;
    const double weight = completion.token_weight / settings.grpo_groups;
    if (completion.source == CompletionPlan::kTarget) {
      target.grpo_weight += weight;
      target.recorded = Recorded(group.group->target_log_probs_full, group.group->target_log_probs_trie, settings,
                                 group.group->behavior_version, levels);
      continue;
    }
    const Completion& sampled = group.group->completions[static_cast<size_t>(completion.source)];
    PlannedBranch branch;
    branch.tokens = sampled.tokens;
    branch.grpo_weight = weight;
    branch.recorded =
        Recorded(sampled.log_probs_full, sampled.log_probs_trie, settings, group.group->behavior_version, levels);
    branches.push_back(branch);
  }
  if (target.nll_weight != 0 || target.grpo_weight != 0) branches.insert(branches.begin(), target);
  return branches;
}

at::Tensor ToTensor(const std::vector<double>& values, at::ScalarType dtype) {
  return torch::tensor(values, torch::kDouble).to(dtype);
}

// log p(token | prefix) renormalised over the legal children of each row's node: [R].
at::Tensor TrieLogProbs(const at::Tensor& logits, const at::Tensor& chosen, const Trie& trie,
                        const std::vector<WeightedRow>& rows) {
  int64_t widest = 1;
  for (const WeightedRow& row : rows) {
    widest = std::max<int64_t>(widest, static_cast<int64_t>(trie.ChildrenOf(row.node).tokens.size()));
  }
  const int64_t count = static_cast<int64_t>(rows.size());
  at::Tensor children = torch::zeros({count, widest}, torch::kLong);
  at::Tensor illegal = torch::ones({count, widest}, torch::kBool);
  int64_t* const token = children.mutable_data_ptr<int64_t>();
  bool* const mask = illegal.mutable_data_ptr<bool>();
  for (int64_t r = 0; r < count; ++r) {
    const absl::Span<const int32_t> legal = trie.ChildrenOf(rows[static_cast<size_t>(r)].node).tokens;
    std::copy(legal.begin(), legal.end(), token + r * widest);
    std::fill_n(mask + r * widest, legal.size(), false);
  }
  const at::Tensor legal_logits =
      logits.gather(1, children).masked_fill(illegal, -std::numeric_limits<double>::infinity());
  return chosen - legal_logits.logsumexp(1);
}

}  // namespace

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
      planned.push_back(branch);
    }
  }
  RlLoss result;
  if (planned.empty()) return result;
  SLUICE_ASSIGN_OR_RETURN(const TreeOutput output, policy.ForwardTree(batch, settings.dropout, settings.dropout_seed));
  result.rows = static_cast<double>(output.hidden.size(0));

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

  std::vector<int64_t> row_index, tokens;
  std::vector<double> full_weight, trie_weight;
  const bool nll_full = settings.nll_space == LogProbSpace::kFull;
  const bool grpo_full = settings.grpo_space == LogProbSpace::kFull;
  bool any_trie = !nll_full;
  for (const WeightedRow& row : rows) {
    row_index.push_back(row.row);
    tokens.push_back(row.token);
    full_weight.push_back((nll_full ? row.nll_weight : 0) + (grpo_full ? row.grpo_weight : 0));
    trie_weight.push_back((nll_full ? 0 : row.nll_weight) + (grpo_full ? 0 : row.grpo_weight));
    any_trie = any_trie || trie_weight.back() != 0;
  }
  const at::Tensor logits = policy.Logits(output.hidden.index_select(0, torch::tensor(row_index, torch::kLong)));
  const at::Tensor chosen = logits.gather(1, torch::tensor(tokens, torch::kLong).unsqueeze(1)).squeeze(1);
  const at::Tensor full = chosen - logits.logsumexp(1);
  const at::Tensor in_trie = any_trie ? TrieLogProbs(logits, chosen, trie, rows) : full;
  const at::ScalarType dtype = logits.scalar_type();
  result.loss = -(ToTensor(full_weight, dtype) * full).sum();
  if (any_trie) result.loss = result.loss - (ToTensor(trie_weight, dtype) * in_trie).sum();

  // The terms apart, and the comparison with the actors, from the same numbers without gradient.
  const at::Tensor full_values = full.detach().to(torch::kDouble).contiguous();
  const at::Tensor trie_values = in_trie.detach().to(torch::kDouble).contiguous();
  const double* const in_full = full_values.const_data_ptr<double>();
  const double* const in_children = trie_values.const_data_ptr<double>();
  for (size_t r = 0; r < rows.size(); ++r) {
    const double grpo_log_prob = grpo_full ? in_full[r] : in_children[r];
    result.grpo_sum -= rows[r].grpo_weight * grpo_log_prob;
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

absl::StatusOr<RlStepResult> RlStep(Policy& policy, const Trie& trie, AdamW& optimizer, Collective& collective,
                                    absl::Span<const RlGroup> groups, const RlStepSettings& settings) {
  policy.gradients().zero_();
  RlLoss total;
  RlStepSettings part_settings = settings;
  size_t first = 0;
  while (first < groups.size()) {
    int64_t rows = 0;
    size_t count = 0;
    while (first + count < groups.size()) {
      const RlGroup& group = groups[first + count];
      const int64_t more = static_cast<int64_t>(group.input.size()) +
                           static_cast<int64_t>(group.plan.completions.size() + 1) * (trie.levels() - 1);
      if (count > 0 && rows + more > settings.max_rows) break;
      rows += more;
      ++count;
    }
    // Parts and ranks draw dropout masks of their own.
    part_settings.dropout_seed =
        settings.dropout_seed + static_cast<uint64_t>(collective.rank()) * groups.size() + static_cast<uint64_t>(first);
    SLUICE_ASSIGN_OR_RETURN(const RlLoss part, RlGroupLoss(policy, trie, groups.subspan(first, count), part_settings));
    if (part.loss.defined()) part.loss.backward();
    total.nll_sum += part.nll_sum;
    total.nll_tokens += part.nll_tokens;
    total.grpo_sum += part.grpo_sum;
    total.mismatch_sum += part.mismatch_sum;
    total.mismatch_max = std::max(total.mismatch_max, part.mismatch_max);
    total.compared += part.compared;
    total.rows += part.rows;
    first += count;
  }
  SLUICE_RETURN_IF_ERROR(collective.AllReduceSum(policy.gradients()));
  std::vector<double> sums = {total.nll_sum,      total.nll_tokens, total.grpo_sum,
                              total.mismatch_sum, total.compared,   total.rows};
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
  SLUICE_ASSIGN_OR_RETURN(result.gradient_norm, optimizer.Step(settings.learning_rate));
  return result;
}

}  // namespace sluice::learner
