#include "learner/objective/judge.h"

#include <algorithm>
#include <numeric>
#include <unordered_set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/status/status.h"
#include "learner/objective/advantages.h"
#include "learner/objective/rewards.h"

namespace sluice::learner {
namespace {

double SequenceLogProb(const std::vector<float>& log_probs) {
  return std::accumulate(log_probs.begin(), log_probs.end(), 0.0);
}

absl::Status CheckGroup(const JudgeInput& input, const JudgeContext& context, bool needs_target_log_probs) {
  const ScoredGroup& group = *input.group;
  const size_t levels = static_cast<size_t>(context.levels);
  if (group.completions.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("group ", input.ordinal, " has no completions"));
  }
  for (size_t i = 0; i < group.completions.size(); ++i) {
    const Completion& completion = group.completions[i];
    if (completion.tokens.size() != levels || completion.log_probs_full.size() != levels) {
      return absl::InvalidArgumentError(absl::StrCat("group ", input.ordinal, ", completion ", i, ": want ", levels,
                                                     " tokens and log-probabilities, got ", completion.tokens.size(),
                                                     " and ", completion.log_probs_full.size()));
    }
  }
  if (needs_target_log_probs && group.target_log_probs_full.size() != levels) {
    return absl::InvalidArgumentError(absl::StrCat("group ", input.ordinal, ": want ", levels,
                                                   " log-probabilities of the target, got ",
                                                   group.target_log_probs_full.size()));
  }
  return absl::OkStatus();
}

GateInput MakeGateInput(const JudgeInput& input, const GroupRewards& rewards, SamplerKind sampler) {
  const ScoredGroup& group = *input.group;
  std::vector<double> log_probs;
  for (const Completion& completion : group.completions)
    log_probs.push_back(SequenceLogProb(completion.log_probs_full));
  std::vector<size_t> order(group.completions.size());
  std::iota(order.begin(), order.end(), size_t{0});
  if (sampler == SamplerKind::kSample) {
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return log_probs[a] > log_probs[b]; });
  }
  GateInput gate;
  for (const size_t i : order) {
    gate.completion_leaves.push_back(group.completions[i].leaf);
    gate.completion_log_probs.push_back(log_probs[i]);
    gate.completion_scores.push_back(rewards.completions[i]);
  }
  gate.target_leaf = input.target_leaf;
  gate.target_log_prob = SequenceLogProb(group.target_log_probs_full);
  gate.target_score = rewards.target;
  gate.negative_leaves = group.negative_leaves;
  gate.negative_scores = rewards.negatives;
  return gate;
}

// Rewards, advantages and, if the gate is open, token weights of the group's
// members.
void PlanCompletions(const JudgeInput& input, const GroupRewards& rewards, const RlOptions& options, int levels,
                     GroupPlan* plan) {
  const std::vector<Completion>& sampled = input.group->completions;
  std::vector<double> member_rewards = rewards.completions;
  plan->completions.resize(sampled.size());
  for (size_t i = 0; i < sampled.size(); ++i) plan->completions[i].source = static_cast<int>(i);
  if (options.target_in_group && !plan->target_sampled) {
    // A catalog with few legal leaves gives short groups: those have room.
    if (sampled.size() < static_cast<size_t>(options.group_size)) {
      plan->completions.emplace_back();
      member_rewards.emplace_back();
    }
    plan->completions.back().source = CompletionPlan::kTarget;
    member_rewards.back() = rewards.target;
  }
  const GroupAdvantages advantages = ZScoreAdvantages(member_rewards, options.negative_weight);
  plan->has_rewards = true;
  plan->target_reward = rewards.target;
  for (const double reward : rewards.completions) plan->reward_mean += reward / static_cast<double>(sampled.size());
  plan->zero_advantage = advantages.zero_variance;
  const double group_size = static_cast<double>(plan->completions.size());
  // All semantic IDs have L tokens, the target's too.
  const double length = static_cast<double>(levels);
  for (size_t i = 0; i < plan->completions.size(); ++i) {
    CompletionPlan& member = plan->completions[i];
    member.reward = member_rewards[i];
    member.advantage = advantages.values[i];
    if (plan->verdict.open) member.token_weight = options.lambda * member.advantage / (group_size * length);
  }
}

}  // namespace

absl::StatusOr<GroupPlan> Judge(const JudgeInput& input, const RlOptions& options, const JudgeContext& context) {
  if (input.target_leaf < 0) {
    return absl::InvalidArgumentError(absl::StrCat("group ", input.ordinal, " has no target in the catalog"));
  }
  GroupPlan plan;
  plan.ordinal = input.ordinal;
  if (options.objective != ObjectiveKind::kGrpoOnly) {
    plan.nll_token_weight = options.nll_reduction == NllReduction::kMean ? 1.0 / context.levels : 1.0;
  }
  const auto close = [&plan](GateReason reason) {
    plan.verdict.open = false;
    plan.verdict.reason = reason;
    return plan;
  };

  if (input.group != nullptr) {
    const ScoredGroup& group = *input.group;
    const bool teacher_forced =
        options.objective == ObjectiveKind::kGated && options.gate.difficulty == DifficultyMode::kTeacherForced;
    SLUICE_RETURN_IF_ERROR(CheckGroup(input, context, teacher_forced));
    std::unordered_set<int32_t> leaves;
    for (const Completion& completion : group.completions) leaves.insert(completion.leaf);
    plan.distinct = static_cast<int>(leaves.size());
    plan.target_sampled = leaves.contains(input.target_leaf);
    plan.staleness =
        context.learner_version >= group.behavior_version ? context.learner_version - group.behavior_version : 0;
  }

  if (options.objective == ObjectiveKind::kNllOnly) return close(GateReason::kObjective);
  if (input.group == nullptr) return close(GateReason::kUnsampled);
  if (input.group->catalog_version != context.catalog_version) return close(GateReason::kCatalogChanged);
  if (input.group->behavior_version > context.learner_version ||
      plan.staleness > static_cast<uint64_t>(options.staleness)) {
    return close(GateReason::kStale);
  }
  const absl::StatusOr<GroupRewards> rewards = RewardsOf(*input.group, options.reward);
  if (!rewards.ok()) {
    plan.error = std::string(rewards.status().message());
    return close(GateReason::kRewardUnavailable);
  }
  if (options.objective == ObjectiveKind::kGated) {
    plan.verdict = Decide(MakeGateInput(input, *rewards, options.sampler), options.gate);
  } else {
    plan.verdict.open = true;
    plan.verdict.reason = GateReason::kFixedOpen;
  }
  PlanCompletions(input, *rewards, options, context.levels, &plan);
  return plan;
}

void JudgeStatistics::Add(const GroupPlan& plan, const ScoredGroup* group) {
  groups += 1;
  by_reason[static_cast<size_t>(plan.verdict.reason)] += 1;
  if (plan.verdict.open) admitted += 1;
  if (IsOperational(plan.verdict.reason)) degraded += 1;
  if (group != nullptr && !group->completions.empty()) {
    sampled += 1;
    if (plan.target_sampled) target_sampled += 1;
    distinct_share_sum += plan.distinct / static_cast<double>(group->completions.size());
    staleness_sum += static_cast<double>(plan.staleness);
  }
  if (plan.has_rewards) {
    with_rewards += 1;
    if (plan.zero_advantage) zero_advantage += 1;
    reward_sum += plan.reward_mean;
    target_reward_sum += plan.target_reward;
  }
  if (plan.verdict.diagnostics.group_size > 0) {
    const GateDiagnostics& found = plan.verdict.diagnostics;
    difficulty_by_discriminability[found.difficult][found.in_head && found.suppressed] += 1;
  }
}

namespace {

// Visits every number of the statistics in one fixed order.
template <typename Statistics, typename Visitor>
void VisitNumbers(Statistics& statistics, const Visitor& visit) {
  visit(statistics.groups);
  for (auto& count : statistics.by_reason) visit(count);
  visit(statistics.admitted);
  visit(statistics.degraded);
  visit(statistics.with_rewards);
  visit(statistics.zero_advantage);
  visit(statistics.reward_sum);
  visit(statistics.target_reward_sum);
  visit(statistics.sampled);
  visit(statistics.target_sampled);
  visit(statistics.distinct_share_sum);
  visit(statistics.staleness_sum);
  for (auto& row : statistics.difficulty_by_discriminability) {
    for (auto& count : row) visit(count);
  }
}

}  // namespace

std::vector<double> JudgeStatistics::ToVector() const {
  std::vector<double> values;
  VisitNumbers(*this, [&values](const double& value) { values.push_back(value); });
  return values;
}

JudgeStatistics JudgeStatistics::FromVector(absl::Span<const double> values) {
  JudgeStatistics statistics;
  SLUICE_CHECK(values.size() == statistics.ToVector().size(), absl::StrCat("got ", values.size(), " numbers"));
  size_t next = 0;
  VisitNumbers(statistics, [&](double& value) { value = values[next++]; });
  return statistics;
}

}  // namespace sluice::learner
