// Metrics of a policy on held-out examples: constrained beams for hit rates, unconstrained ones for hallucination.
#ifndef SLUICE_LEARNER_RUN_EVALUATE_POLICY_H_
#define SLUICE_LEARNER_RUN_EVALUATE_POLICY_H_

#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/catalog/dataset.h"
#include "common/collective/collective.h"
#include "common/model/policy.h"
#include "common/time/clock.h"
#include "common/types/group.h"
#include "learner/evaluate/example_file.h"
#include "learner/evaluate/metrics.h"
#include "learner/evaluate/outcome_file.h"
#include "learner/ledger/eval_source.h"
#include "learner/options/options.h"

namespace sluice::learner {

// Actors that decode beside this rank, and the version that the policy to evaluate was published under.
struct EvalActors {
  EvalSource* source = nullptr;  // null: this rank decodes alone
  uint64_t policy_version = 0;
};

struct EvaluationSettings {
  int beams = 50;
  int unconstrained_beams = 0;     // 0: hallucination is not measured
  bool exclude_history = true;     // every item that the user had before is left out, not only those in the prompt
  int batch_prompts = 32;          // decoded together, by this rank or by an actor
  double head_share = kHeadShare;  // of the training events: what makes an item a head item
  EvalActors actors;
  NowFunction now;  // monotonic
};

// How far an evaluation is, over all ranks, in prompts.
struct EvaluationProgress {
  int64_t done = 0;
  int64_t total = 0;
  int64_t by_actors = 0;  // of those that are done
};

// Turns one example's beams into what it contributes to the metrics. Leaves become their items, in beam order, items
// within a leaf ascending; items in `excluded` (ascending) are left out of both lists.
PromptOutcome JudgeBeams(const Trie& trie, int32_t target, absl::Span<const int32_t> excluded,
                         absl::Span<const Completion> constrained, absl::Span<const Completion> unconstrained);

// Adds what the first kTopOfList items of the outcome's list are worth in truth to its user, if there is a truth and
// its catalog is small enough for exact numbers (MarketTruth::exact_metrics).
void JudgeByTruth(const MarketTruth* truth, PromptOutcome* outcome);

// Leaves, levels and the head of a data set's catalog, by its training events.
CatalogShape ShapeOf(const Dataset& dataset, double head_share);

// Decodes this rank's share of `examples` (every world_size-th), with the help of its actors if there are any, and adds
// the sums over ranks, so every rank returns the same metrics. What is decoded together does not depend on who decodes
// it, so neither do the metrics. An actor that vanishes costs its blocks, which this rank then decodes itself.
// `outcomes`, if not null, receives this rank's own outcomes, in order. `look` is called on all ranks at the same time,
// about once a second and at the end, with the same progress, so it may be collective; if it returns a non-OK status
// (the same everywhere) the evaluation ends with it. Collective.
absl::StatusOr<RankingMetrics> EvaluatePolicy(Policy& policy, const Dataset& dataset,
                                              absl::Span<const Example> examples, const EvaluationSettings& settings,
                                              Collective& collective, std::vector<PromptOutcome>* outcomes,
                                              const std::function<absl::Status(const EvaluationProgress&)>& look);

// What every rank's EvaluatePolicy found of its share, in the order of the `total` examples and without the lists; the
// same on every rank. Collective.
absl::StatusOr<std::vector<PromptOutcome>> GatherOutcomes(Collective& collective, std::vector<PromptOutcome> mine,
                                                          size_t total);

// One row an example for outcomes.csv: what was found, and what the data set knows of the user and the target.
// `outcomes` are those of the examples, in order.
std::vector<OutcomeRow> OutcomeRows(const Dataset& dataset, absl::Span<const Example> examples,
                                    std::vector<PromptOutcome> outcomes, bool exclude_history);

// What a few of the users got, of this rank's own outcomes, for people.
ExampleLists ListsToShow(const Dataset& dataset, uint64_t step, absl::Span<const PromptOutcome> outcomes);

// Adds what every list is truly worth as further columns, in a market whose truth is known; nothing if lists are
// narrower than kTopOfList.
void AddTruthColumns(OutcomeTable* table);

// The list of highest true utility + popularity_weight * log popularity on the same examples, alone on this rank: the
// best there is (weight 0), and the best for logged targets (1). The data set has a truth whose metrics are exact.
RankingMetrics EvaluateTruth(const Dataset& dataset, absl::Span<const Example> examples, double head_share,
                             double popularity_weight, bool exclude_history);

// The co-occurrence rule on the same examples, alone on this rank.
RankingMetrics EvaluateCooccurrenceRule(const Dataset& dataset, absl::Span<const Example> examples, double head_share,
                                        std::vector<PromptOutcome>* outcomes, bool exclude_history = true);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RUN_EVALUATE_POLICY_H_
