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
#include "common/types/group.h"
#include "learner/evaluate/metrics.h"
#include "learner/options/options.h"

namespace sluice::learner {

struct EvaluationSettings {
  int beams = 50;
  int unconstrained_beams = 0;  // 0: hallucination is not measured
  bool exclude_history = true;  // every item that the user had before is left out, not only those in the prompt
  int batch_prompts = 32;       // decoded together
};

// Turns one example's beams into what it contributes to the metrics. Leaves become their items, in beam order, items
// within a leaf ascending; items in `excluded` (ascending) are left out of both lists.
PromptOutcome JudgeBeams(const Trie& trie, int32_t user, int32_t target, absl::Span<const int32_t> excluded,
                         absl::Span<const Completion> constrained, absl::Span<const Completion> unconstrained);

// Decodes this rank's share of `examples` (every world_size-th) and adds the sums over ranks, so every rank returns
// the same metrics. `outcomes`, if not null, receives this rank's own outcomes, in order. `progress(done, total)` is
// called between batches with this rank's counts; if it returns a non-OK status the evaluation ends with it (on this
// rank: callers agree on stopping before they call).
absl::StatusOr<RankingMetrics> EvaluatePolicy(Policy& policy, const Dataset& dataset,
                                              absl::Span<const Example> examples, const EvaluationSettings& settings,
                                              Collective& collective, std::vector<PromptOutcome>* outcomes,
                                              const std::function<absl::Status(int64_t, int64_t)>& progress);

// The co-occurrence rule on the same examples, alone on this rank.
RankingMetrics EvaluateCooccurrenceRule(const Dataset& dataset, absl::Span<const Example> examples,
                                        std::vector<PromptOutcome>* outcomes);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RUN_EVALUATE_POLICY_H_
