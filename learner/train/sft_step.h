// One supervised update: next-item NLL of all targets of a step, in one shared-prefix pass over each window.
#ifndef SLUICE_LEARNER_TRAIN_SFT_STEP_H_
#define SLUICE_LEARNER_TRAIN_SFT_STEP_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "common/collective/collective.h"
#include "common/model/policy.h"
#include "learner/train/adamw.h"
#include "learner/train/sft_plan.h"
#include "learner/train/step_lanes.h"

namespace sluice::learner {

// A forward pass's input and what it predicts.
struct SftBatch {
  TreeBatch tree;
  // Targets that the trunk itself predicts (plain code prompts, where the next item's codes follow in the trunk):
  // row `position` of prompt `prompt` predicts `token`.
  struct TrunkTarget {
    int32_t prompt = 0;
    int32_t position = 0;
    int32_t token = 0;
  };
  std::vector<TrunkTarget> trunk_targets;
};

// Builds the pass for some windows under the policy's encoder. Merged: every target is a branch on its prefix. Codes:
// targets inside the window are predicted by the trunk's own rows, the last one is a branch.
absl::StatusOr<SftBatch> MakeSftBatch(const Policy& policy, const Trie& trie,
                                      const std::vector<const SftWindow*>& windows);

// Sums over a batch, differentiable; scalars of the policy's dtype.
struct SftLosses {
  at::Tensor tokens;  // of -log p(token | prefix) over the full vocabulary, in nats
  at::Tensor items;   // of ItemLossSum (item_term.h) over the targets; undefined unless asked for
  int64_t num_tokens = 0;
};
// `with_items` needs a merged policy.
absl::StatusOr<SftLosses> SftLossSums(Policy& policy, const SftBatch& batch, double dropout, uint64_t dropout_seed,
                                      bool with_items = false);

// Windows are passed through the policy in parts of at most this many rows in all lanes together (one window a lane
// always fits): bounds memory.
inline constexpr int64_t kMaxSftRows = 16384;

struct SftStepSettings {
  double learning_rate = 0;
  double dropout = 0;
  uint64_t dropout_seed = 0;
  double item_loss_weight = 0;  // of the items' loss beside a token's; above 0 the policy must be merged
  int64_t max_rows = kMaxSftRows;
};

struct SftStepResult {
  double loss = 0;       // mean NLL a token over all ranks
  double item_loss = 0;  // mean loss a target, unweighted; 0 without a weight
  double gradient_norm = 0;
};

// Forward and backward in parts of at most settings.max_rows rows, one all-reduce of the gradient arena, clip, AdamW.
// The gradient is that of (sum of the tokens' NLL + weight * sum of the items' loss) / tokens over all ranks, so the
// world size does not change the update (beyond rounding and dropout). The lanes share the rank's windows; optimizer is
// of lane 0's arenas. Collective.
absl::StatusOr<SftStepResult> SftStep(StepLanes& lanes, const Trie& trie, AdamW& optimizer, Collective& collective,
                                      const SftStepPlan& plan, const SftStepSettings& settings);
// The same in one lane.
absl::StatusOr<SftStepResult> SftStep(Policy& policy, const Trie& trie, AdamW& optimizer, Collective& collective,
                                      const SftStepPlan& plan, const SftStepSettings& settings);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_TRAIN_SFT_STEP_H_
