#include "learner/objective/judge.h"

#include <algorithm>
#include <numeric>
#include <unordered_set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "common/random/random.h"
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

// Places in the order of the policy's preference. Beams come in it; all else is listed by log-probability.
std::vector<size_t> PreferenceOrder(absl::Span<const double> log_probs, SamplerKind sampler) {
  std::vector<size_t> order(log_probs.size());
  std::iota(order.begin(), order.end(), size_t{0});
  if (sampler != SamplerKind::kBeam) {
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return log_probs[a] > log_probs[b]; });
  }
  return order;
}

GateInput MakeGateInput(const JudgeInput& input, const GroupRewards& scores, SamplerKind sampler) {
  const ScoredGroup& group = *input.group;
  std::vector<double> log_probs;
  for (const Completion& completion : group.completions)
    log_probs.push_back(SequenceLogProb(completion.log_probs_full));
  GateInput gate;
  for (const size_t i : PreferenceOrder(log_probs, sampler)) {
    gate.completion_leaves.push_back(group.completions[i].leaf);
    gate.completion_log_probs.push_back(log_probs[i]);
    gate.completion_scores.push_back(scores.completions[i]);
  }
  gate.target_leaf = input.target_leaf;
  gate.target_log_prob = SequenceLogProb(group.target_log_probs_full);
  gate.target_score = scores.target;
  gate.negative_leaves = group.negative_leaves;
  gate.negative_scores = scores.negatives;
  gate.history_leaves.assign(input.history_leaves.begin(), input.history_leaves.end());
  gate.history_scores = scores.history;
  gate.region = input.region;
  gate.reliable = input.reliable;
  return gate;
}

bool ComparesPrefixes(const RlOptions& options) {
  return options.reward.kind == RewardKind::kPrefix || options.advantage.kind == AdvantageKind::kRecast ||
         options.advantage.sibling_weight > 0;
}

// The members of the GRPO term: what was sampled, with the target if it is put in. Parallel arrays.
struct Members {
  std::vector<int> sources;
  std::vector<int32_t> leaves;
  std::vector<absl::Span<const int32_t>> tokens;
  std::vector<double> log_probs;  // of the sequence, full vocabulary
  std::vector<double> ranks;      // from 1, by the policy's preference
  std::vector<double> rewards;    // filled for the ranker's

  size_t size() const { return sources.size(); }
  void Rank(SamplerKind sampler) {
    ranks.assign(size(), 0);
    const std::vector<size_t> order = PreferenceOrder(log_probs, sampler);
    for (size_t place = 0; place < order.size(); ++place) ranks[order[place]] = static_cast<double>(place + 1);
  }
};

// True if a ratio could be formed for the target: actors leave out what its history excludes from the trie.
bool TargetMayJoin(const ScoredGroup& group, const RlOptions& options, size_t levels) {
  if (options.policy_loss.kind == PolicyLossKind::kReinforce) return true;
  const std::vector<float>& recorded =
      options.grpo_space == LogProbSpace::kTrie ? group.target_log_probs_trie : group.target_log_probs_full;
  return recorded.size() == levels;
}

Members MembersOf(const JudgeInput& input, const GroupRewards& scores, const RlOptions& options, int levels,
                  bool target_sampled) {
  const ScoredGroup& group = *input.group;
  Members members;
  for (size_t i = 0; i < group.completions.size(); ++i) {
    members.sources.push_back(static_cast<int>(i));
    members.leaves.push_back(group.completions[i].leaf);
    members.tokens.push_back(group.completions[i].tokens);
    members.log_probs.push_back(SequenceLogProb(group.completions[i].log_probs_full));
  }
  members.rewards = scores.completions;
  if (options.target_in_group && !target_sampled && TargetMayJoin(group, options, static_cast<size_t>(levels))) {
    size_t place = members.size() - 1;
    if (members.size() < static_cast<size_t>(options.group_size)) {
      // A catalog with few legal leaves gives short groups: those have room.
      place = members.size();
      members.sources.push_back(0);
      members.leaves.push_back(0);
      members.tokens.emplace_back();
      members.log_probs.push_back(0);
      if (!members.rewards.empty()) members.rewards.push_back(0);
    } else if (options.advantage.kind == AdvantageKind::kRecast) {
      members.Rank(options.sampler);
      place = LeastSimilar(SharedPrefixes(members.tokens, input.target_tokens), members.ranks);
    }
    members.sources[place] = CompletionPlan::kTarget;
    members.leaves[place] = input.target_leaf;
    members.tokens[place] = input.target_tokens;
    members.log_probs[place] = SequenceLogProb(group.target_log_probs_full);
    if (!members.rewards.empty()) members.rewards[place] = scores.target;
  }
  members.Rank(options.sampler);
  return members;
}

// ReRe's rewards of a list in any order, by the policy's ranks.
std::vector<double> RankingRewardsByRank(absl::Span<const int32_t> leaves, absl::Span<const double> ranks,
                                         int32_t target_leaf, const RewardOptions& options) {
  std::vector<int32_t> listed(leaves.size());
  for (size_t i = 0; i < leaves.size(); ++i) listed[static_cast<size_t>(ranks[i]) - 1] = leaves[i];
  const std::vector<double> in_list = RankingRewards(listed, target_leaf, options.denominator, options.no_hit);
  std::vector<double> rewards(leaves.size());
  for (size_t i = 0; i < leaves.size(); ++i) rewards[i] = in_list[static_cast<size_t>(ranks[i]) - 1];
  return rewards;
}

// Rewards of members, whatever the kind.
std::vector<double> RewardsOfMembers(const JudgeInput& input, const Members& members, const RewardOptions& options,
                                     const LeafVectors* vectors) {
  switch (options.kind) {
    case RewardKind::kRanker: {
      std::vector<double> rewards = members.rewards;
      if (options.floor) ApplyFloor(*options.floor, absl::MakeSpan(rewards));
      if (options.positive_to_max) {
        RaisePositivesToMax(members.leaves, input.target_leaf, absl::MakeSpan(rewards));
      }
      return rewards;
    }
    case RewardKind::kRule:
      return RuleRewards(members.leaves, input.target_leaf);
    case RewardKind::kPrefix:
      return PrefixRewards(members.tokens, input.target_tokens);
    case RewardKind::kSemantic:
      return SemanticRewards(members.leaves, input.target_leaf, *vectors);
    case RewardKind::kRanking:
    case RewardKind::kRankingOnly:
      break;
  }
  std::vector<double> rewards = RankingRewardsByRank(members.leaves, members.ranks, input.target_leaf, options);
  if (options.kind == RewardKind::kRanking) {
    for (size_t i = 0; i < rewards.size(); ++i) rewards[i] += members.leaves[i] == input.target_leaf ? 1 : 0;
  }
  return rewards;
}

// What the logged target earns, in the group or not.
double TargetReward(const GroupRewards& scores, const RewardOptions& options) {
  switch (options.kind) {
    case RewardKind::kRanker:
      return options.floor && !(scores.target > *options.floor) ? 0 : scores.target;
    case RewardKind::kRankingOnly:
      return 0;
    default:
      return 1;
  }
}

// Rewards, advantages, and the weights that an admitted group's members would have.
void PlanCompletions(const JudgeInput& input, const GroupRewards& scores, const RlOptions& options,
                     const JudgeContext& context, GroupPlan* plan) {
  const int levels = context.levels;
  const AdvantageOptions& wanted = options.advantage;
  RlOptions as_sampled = options;
  as_sampled.target_in_group = false;
  const Members sampled = MembersOf(input, scores, as_sampled, levels, plan->target_sampled);
  for (const double reward : RewardsOfMembers(input, sampled, options.reward, context.vectors)) {
    plan->reward_mean += reward / static_cast<double>(sampled.size());
  }
  const Members members = MembersOf(input, scores, options, levels, plan->target_sampled);
  const std::vector<double> rewards = RewardsOfMembers(input, members, options.reward, context.vectors);
  plan->has_rewards = true;
  plan->target_reward = TargetReward(scores, options.reward);

  std::vector<double> advantages;
  if (wanted.kind == AdvantageKind::kRecast) {
    advantages = RecastAdvantages(SharedPrefixes(members.tokens, input.target_tokens), levels, members.ranks);
    for (double& advantage : advantages) {
      if (advantage < 0) advantage *= options.negative_weight;
    }
    plan->zero_advantage =
        std::all_of(advantages.begin(), advantages.end(), [](double advantage) { return advantage == 0; });
  } else {
    GroupAdvantages found = ZScoreAdvantages(rewards, options.negative_weight);
    plan->zero_advantage = found.zero_variance;
    advantages = std::move(found.values);
  }
  if (wanted.target_bound) BoundByTarget(rewards, plan->target_reward, absl::MakeSpan(advantages));
  if (wanted.window_rank > 0) {
    WeighNegativesByWindow(members.ranks, wanted.window_rank, wanted.window_temperature, wanted.window_threshold,
                           absl::MakeSpan(advantages));
  }
  std::vector<std::vector<double>> siblings;
  if (wanted.sibling_weight > 0) siblings = SiblingAdvantages(members.tokens, rewards, wanted.sibling_mean);

  // All semantic IDs have L tokens, the target's too.
  const double share = options.policy_loss.mean == TokenMean::kGroup
                           ? 1 / (static_cast<double>(members.size()) * static_cast<double>(levels))
                           : 1;
  for (size_t i = 0; i < members.size(); ++i) {
    CompletionPlan& member = plan->completions.emplace_back();
    member.source = members.sources[i];
    member.reward = rewards[i];
    member.advantage = advantages[i];
    member.unit_weight = wanted.global_weight * advantages[i] * share;
    member.unit_kl = share;
    if (siblings.empty()) continue;
    for (const double weight : siblings[i]) member.unit_levels.push_back(wanted.sibling_weight * weight);
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
    plan.nll_unit = options.nll_reduction == NllReduction::kMean ? 1.0 / context.levels : 1.0;
    plan.nll_token_weight = plan.nll_unit;
  }
  const auto close = [&plan](GateReason reason) {
    plan.verdict.open = false;
    plan.verdict.reason = plan.gate_reason = reason;
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
  if (input.group == nullptr) {
    return close(input.reward_outage ? GateReason::kRewardUnavailable : GateReason::kUnsampled);
  }
  if (input.group->catalog_version != context.catalog_version) return close(GateReason::kCatalogChanged);
  if (input.group->behavior_version > context.learner_version ||
      plan.staleness > static_cast<uint64_t>(options.staleness)) {
    return close(GateReason::kStale);
  }
  if (ComparesPrefixes(options) && input.target_tokens.size() != static_cast<size_t>(context.levels)) {
    return absl::InvalidArgumentError(absl::StrCat("group ", input.ordinal, ": want the target's ", context.levels,
                                                   " tokens to compare prefixes with, got ",
                                                   input.target_tokens.size()));
  }
  if (options.reward.kind == RewardKind::kSemantic && context.vectors == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("group ", input.ordinal, ": the semantic reward compares item vectors, and there are none"));
  }
  GroupRewards scores;
  if (NeedsScores(options)) {
    absl::StatusOr<GroupRewards> found = RewardsOf(*input.group, options.reward);
    if (!found.ok()) {
      plan.error = std::string(found.status().message());
      return close(GateReason::kRewardUnavailable);
    }
    scores = *std::move(found);
    plan.has_scores = true;
    if (scores.history.size() != input.history_leaves.size()) {
      return absl::InvalidArgumentError(absl::StrCat("group ", input.ordinal, ": want leaves of the ",
                                                     scores.history.size(), " items of the history with scores, got ",
                                                     input.history_leaves.size()));
    }
  }
  PlanCompletions(input, scores, options, context, &plan);
  if (options.objective == ObjectiveKind::kGated) {
    if (!plan.has_scores) {
      // Only difficulty and truth are asked, which look at no score.
      scores.completions.assign(input.group->completions.size(), 0);
      scores.negatives.assign(input.group->negative_leaves.size(), 0);
      scores.history.assign(input.history_leaves.size(), 0);
    }
    GateInput gate = MakeGateInput(input, scores, options.sampler);
    gate.has_scores = plan.has_scores;
    plan.verdict =
        context.gate_state != nullptr ? Decide(gate, options.gate, *context.gate_state) : Decide(gate, options.gate);
    plan.observation = ObservationOf(gate, plan.verdict.diagnostics, options.gate);
    if (plan.has_scores) {
      plan.random =
          RandomRankerDiagnostics(gate, options.gate, DeriveSeed(context.random_ranker_seed, {input.ordinal}));
    }
  } else {
    plan.verdict.open = true;
    plan.verdict.reason = GateReason::kFixedOpen;
  }
  plan.gate_open = plan.verdict.open;
  plan.gate_reason = plan.verdict.reason;
  SetAdmission(plan.verdict.open ? 1 : 0, options, &plan);
  return plan;
}

void SetAdmission(double admission, const RlOptions& options, GroupPlan* plan) {
  const double weight = options.lambda * admission;
  plan->admission = admission;
  plan->nll_token_weight = options.mixing == Mixing::kConvex ? plan->nll_unit * (1 - weight) : plan->nll_unit;
  for (CompletionPlan& member : plan->completions) {
    member.token_weight = weight * member.unit_weight;
    member.kl_weight = weight * options.kl.beta * member.unit_kl;
    member.level_weights.clear();
    if (weight == 0) continue;
    for (const double unit : member.unit_levels) member.level_weights.push_back(weight * unit);
  }
}

void JudgeStatistics::Add(const GroupPlan& plan, const ScoredGroup* group) {
  groups += 1;
  by_reason[static_cast<size_t>(plan.verdict.reason)] += 1;
  admitted += plan.admission;
  const double levels =
      group == nullptr || group->completions.empty() ? 0 : static_cast<double>(group->completions[0].tokens.size());
  tokens += levels * static_cast<double>(plan.completions.size());
  admitted_tokens += plan.admission * levels * static_cast<double>(plan.completions.size());
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
    judged += 1;
    if (plan.gate_open) gate_open += 1;
    if (!plan.has_scores) return;  // difficulty alone was looked at
    difficulty_by_discriminability[found.difficult][found.in_head && found.suppressed] += 1;
    cells.ranker.Add(found);
    cells.random.Add(plan.random);
  }
}

namespace {

// Visits every number of the statistics in one fixed order, with its name.
template <typename Statistics, typename Visitor>
void VisitNumbers(Statistics& statistics, const Visitor& visit) {
  visit("groups", statistics.groups);
  for (int reason = 0; reason < kNumGateReasons; ++reason) {
    visit(absl::StrCat("reason/", GateReasonName(static_cast<GateReason>(reason))),
          statistics.by_reason[static_cast<size_t>(reason)]);
  }
  visit("admitted", statistics.admitted);
  visit("judged", statistics.judged);
  visit("gate_open", statistics.gate_open);
  visit("tokens", statistics.tokens);
  visit("admitted_tokens", statistics.admitted_tokens);
  visit("degraded", statistics.degraded);
  visit("with_rewards", statistics.with_rewards);
  visit("zero_advantage", statistics.zero_advantage);
  visit("reward_sum", statistics.reward_sum);
  visit("target_reward_sum", statistics.target_reward_sum);
  visit("sampled", statistics.sampled);
  visit("target_sampled", statistics.target_sampled);
  visit("distinct_share_sum", statistics.distinct_share_sum);
  visit("staleness_sum", statistics.staleness_sum);
  for (size_t difficult = 0; difficult < 2; ++difficult) {
    for (size_t discriminable = 0; discriminable < 2; ++discriminable) {
      visit(absl::StrCat("difficult_", difficult, "_discriminable_", discriminable),
            statistics.difficulty_by_discriminability[difficult][discriminable]);
    }
  }
  for (auto* sums : {&statistics.cells.ranker, &statistics.cells.random}) {
    const std::string ranker = sums == &statistics.cells.ranker ? "cells/ranker/" : "cells/random/";
    for (size_t difficult = 0; difficult < 2; ++difficult) {
      for (size_t discriminable = 0; discriminable < 2; ++discriminable) {
        const std::string cell = absl::StrCat(ranker, "d", difficult, "_c", discriminable);
        visit(absl::StrCat(cell, "/groups"), sums->groups[difficult][discriminable]);
        visit(absl::StrCat(cell, "/correction"), sums->correction[difficult][discriminable]);
      }
    }
  }
}

}  // namespace

void JudgeStatistics::Add(const JudgeStatistics& other) {
  const std::vector<double> values = other.ToVector();
  size_t next = 0;
  VisitNumbers(*this, [&](const std::string&, double& value) { value += values[next++]; });
}

void JudgeStatistics::Save(absl::string_view prefix, std::map<std::string, double>* numbers) const {
  VisitNumbers(*this,
               [&](const std::string& name, const double& value) { (*numbers)[absl::StrCat(prefix, name)] = value; });
}

void JudgeStatistics::Restore(absl::string_view prefix, const std::map<std::string, double>& numbers) {
  VisitNumbers(*this, [&](const std::string& name, double& value) {
    const auto found = numbers.find(absl::StrCat(prefix, name));
    value = found == numbers.end() ? 0 : found->second;
  });
}

std::vector<double> JudgeStatistics::ToVector() const {
  std::vector<double> values;
  VisitNumbers(*this, [&values](const std::string&, const double& value) { values.push_back(value); });
  return values;
}

JudgeStatistics JudgeStatistics::FromVector(absl::Span<const double> values) {
  JudgeStatistics statistics;
  SLUICE_CHECK(values.size() == statistics.ToVector().size(), absl::StrCat("got ", values.size(), " numbers"));
  size_t next = 0;
  VisitNumbers(statistics, [&](const std::string&, double& value) { value = values[next++]; });
  return statistics;
}

}  // namespace sluice::learner
