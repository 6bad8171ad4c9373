#include "learner/run/evaluate_policy.h"

#include <torch/torch.h>

#include <algorithm>
#include <utility>

#include "common/catalog/exclusion.h"
#include "common/collective/sums.h"
#include "common/cooccurrence/cooccurrence.h"
#include "common/decode/decode.h"
#include "common/status/status.h"
#include "learner/run/prompt_order.h"

namespace sluice::learner {
namespace {

// Width of the lists that the co-occurrence rule is judged by: the largest cutoff.
constexpr int kRuleDepth = 50;

std::vector<int32_t> SortedEventsBefore(const Dataset& dataset, const Example& example) {
  const absl::Span<const int32_t> events = dataset.Events(example.user).first(static_cast<size_t>(example.position));
  std::vector<int32_t> sorted(events.begin(), events.end());
  std::sort(sorted.begin(), sorted.end());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  return sorted;
}

bool Contains(absl::Span<const int32_t> sorted, int32_t value) {
  return std::binary_search(sorted.begin(), sorted.end(), value);
}

}  // namespace

PromptOutcome JudgeBeams(const Trie& trie, int32_t user, int32_t target, absl::Span<const int32_t> excluded,
                         absl::Span<const Completion> constrained, absl::Span<const Completion> unconstrained) {
  PromptOutcome outcome;
  outcome.user = user;
  const int32_t target_leaf = trie.LeafOfItem(target);
  int32_t item_rank = 0;
  int32_t sid_rank = 0;
  for (const Completion& completion : constrained) {
    bool any = false;
    for (const int32_t item : trie.ItemsOfLeaf(completion.leaf)) {
      if (Contains(excluded, item)) continue;
      any = true;
      ++item_rank;
      if (item == target) outcome.item_rank = item_rank;
    }
    if (!any) continue;
    ++sid_rank;
    if (completion.leaf == target_leaf) outcome.sid_rank = sid_rank;
    if (outcome.top_leaves.size() < static_cast<size_t>(kTopOfList)) outcome.top_leaves.push_back(completion.leaf);
  }
  for (const Completion& completion : unconstrained.first(std::min<size_t>(unconstrained.size(), kTopOfList))) {
    ++outcome.unconstrained;
    if (completion.leaf < 0) ++outcome.invalid;
  }
  return outcome;
}

absl::StatusOr<RankingMetrics> EvaluatePolicy(Policy& policy, const Dataset& dataset,
                                              absl::Span<const Example> examples, const EvaluationSettings& settings,
                                              Collective& collective, std::vector<PromptOutcome>* outcomes,
                                              const std::function<absl::Status(int64_t, int64_t)>& progress) {
  c10::InferenceMode inference;
  const Trie& trie = dataset.trie();
  std::vector<Example> mine =
      ExamplesOfRank({examples.begin(), examples.end()}, collective.rank(), collective.world_size());
  // Prompts of one batch have similar lengths, so that little of the padded attention is wasted.
  std::vector<size_t> order(mine.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return dataset.History(mine[a]).size() < dataset.History(mine[b]).size();
  });

  RankingMetrics metrics(trie.num_leaves(), settings.beams);
  std::vector<PromptOutcome> found(mine.size());
  for (size_t first = 0; first < order.size(); first += static_cast<size_t>(settings.batch_prompts)) {
    const size_t count = std::min(order.size() - first, static_cast<size_t>(settings.batch_prompts));
    std::vector<DecodePrompt> prompts(count);
    std::vector<std::vector<int32_t>> excluded(count);
    for (size_t i = 0; i < count; ++i) {
      const Example& example = mine[order[first + i]];
      SLUICE_ASSIGN_OR_RETURN(prompts[i].input, policy.EncodePrompt(dataset.History(example)));
      if (!settings.exclude_history) continue;
      excluded[i] = SortedEventsBefore(dataset, example);
      prompts[i].excluded_leaves = ExcludedLeaves(trie, excluded[i]);
    }
    // Both kinds of beams in one call: the prompts are prefilled once.
    DecodePlan plan;
    plan.beams = settings.beams;
    plan.beam_space = LogProbSpace::kFull;
    plan.unconstrained_beams = settings.unconstrained_beams;
    SLUICE_ASSIGN_OR_RETURN(const std::vector<DecodeResult> decoded, Decode(policy, trie, prompts, plan));
    for (size_t i = 0; i < count; ++i) {
      const Example& example = mine[order[first + i]];
      found[order[first + i]] = JudgeBeams(trie, example.user, dataset.Target(example), excluded[i], decoded[i].beams,
                                           decoded[i].unconstrained);
    }
    SLUICE_RETURN_IF_ERROR(progress(static_cast<int64_t>(first + count), static_cast<int64_t>(order.size())));
  }
  for (const PromptOutcome& outcome : found) metrics.Add(outcome);
  if (outcomes != nullptr) *outcomes = std::move(found);
  std::vector<double> sums = metrics.ToSums();
  SLUICE_RETURN_IF_ERROR(SumOverRanks(collective, &sums));
  SLUICE_RETURN_IF_ERROR(metrics.SetSums(sums));
  return metrics;
}

RankingMetrics EvaluateCooccurrenceRule(const Dataset& dataset, absl::Span<const Example> examples,
                                        std::vector<PromptOutcome>* outcomes) {
  const std::shared_ptr<const Cooccurrence> rule = Cooccurrence::FromDataset(dataset);
  const Trie& trie = dataset.trie();
  RankingMetrics metrics(trie.num_leaves(), kRuleDepth);
  for (const Example& example : examples) {
    const std::vector<int32_t> seen = SortedEventsBefore(dataset, example);
    // The rule recommends items, each its own entry: an item's SID rank is its place in the list of items.
    PromptOutcome outcome;
    outcome.user = example.user;
    const int32_t target = dataset.Target(example);
    const std::vector<int32_t> items = rule->Recommend(dataset.History(example), seen, kRuleDepth);
    for (size_t i = 0; i < items.size(); ++i) {
      const int32_t leaf = trie.LeafOfItem(items[i]);
      const int32_t rank = static_cast<int32_t>(i) + 1;
      if (items[i] == target) outcome.item_rank = rank;
      if (outcome.sid_rank == 0 && leaf == trie.LeafOfItem(target)) outcome.sid_rank = rank;
      if (outcome.top_leaves.size() < static_cast<size_t>(kTopOfList)) outcome.top_leaves.push_back(leaf);
    }
    metrics.Add(outcome);
    if (outcomes != nullptr) outcomes->push_back(std::move(outcome));
  }
  return metrics;
}

}  // namespace sluice::learner
