#include "learner/train/sft_step.h"

#include <torch/types.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/collective/sums.h"
#include "common/model/token_log_probs.h"
#include "common/random/random.h"
#include "common/status/status.h"
#include "common/tensor/device.h"
#include "learner/train/device_numbers.h"
#include "learner/train/item_term.h"

namespace sluice::learner {
namespace {

// Trunk position of the last row of the history item `anchor`, separator included: what the next item is predicted
// from.
int32_t AnchorPosition(const PolicyConfig& config, int levels, bool reversed, size_t anchor) {
  // A reversed sequence has a begin token where others may have none.
  const int32_t begin = reversed && config.begin_token < 0 ? 1 : 0;
  return begin + config.EntriesBeforeItems() + static_cast<int32_t>(anchor + 1) * config.EntriesOfItem(levels) - 1;
}

// Rows of a window in a pass: its prompt, and the tokens of its branches that are inputs (all but the last).
int64_t RowsOf(const PolicyConfig& config, int levels, const SftWindow& window) {
  const bool merged = config.encoder == PromptEncoderKind::kMerged;
  const int64_t prompt = AnchorPosition(config, levels, window.reversed, window.items.size() - 1) + 1;
  return prompt + (merged ? window.targets() : 1) * (levels - 1);
}

}  // namespace

absl::StatusOr<SftBatch> MakeSftBatch(const Policy& policy, const Trie& trie,
                                      const std::vector<const SftWindow*>& windows) {
  const PolicyConfig& config = policy.config();
  const bool codes = config.encoder == PromptEncoderKind::kCodes;
  SftBatch batch;
  for (const SftWindow* window : windows) {
    const int32_t prompt = static_cast<int32_t>(batch.tree.prompts.size());
    SLUICE_ASSIGN_OR_RETURN(PromptInput input, policy.EncodePrompt(window->items, window->reversed));
    for (size_t anchor = static_cast<size_t>(window->first_anchor); anchor < window->items.size(); ++anchor) {
      const absl::Span<const int32_t> tokens = trie.TokensOfLeaf(trie.LeafOfItem(window->TargetOf(anchor)));
      const int32_t position = AnchorPosition(config, trie.levels(), window->reversed, anchor);
      if (codes && anchor + 1 < window->items.size()) {
        for (size_t level = 0; level < tokens.size(); ++level) {
          batch.trunk_targets.push_back({prompt, position + static_cast<int32_t>(level), tokens[level]});
        }
      } else {
        batch.tree.branches.push_back({prompt, position, {tokens.begin(), tokens.end()}});
      }
    }
    batch.tree.prompts.push_back(std::move(input));
  }
  return batch;
}

absl::StatusOr<SftLosses> SftLossSums(Policy& policy, const SftBatch& batch, double dropout, uint64_t dropout_seed,
                                      bool with_items) {
  const TreeRows wanted = batch.trunk_targets.empty() ? TreeRows::kPredictions : TreeRows::kAll;
  SLUICE_ASSIGN_OR_RETURN(const TreeOutput output, policy.ForwardTree(batch.tree, dropout, dropout_seed, wanted));
  const auto choice = c10::make_intrusive<TokenChoice>();
  choice->rows = output.prediction_rows;
  std::vector<int32_t>& targets = choice->tokens;
  for (const Branch& branch : batch.tree.branches) {
    targets.insert(targets.end(), branch.tokens.begin(), branch.tokens.end());
  }
  for (const SftBatch::TrunkTarget& target : batch.trunk_targets) {
    choice->rows.push_back(output.trunk_first_row[static_cast<size_t>(target.prompt)] + target.position);
    targets.push_back(target.token);
  }
  SftLosses losses;
  losses.num_tokens = static_cast<int64_t>(targets.size());
  if (with_items) {
    std::vector<int64_t> rows, leaves;  // a merged policy's targets are its branches
    for (size_t i = 0; i < batch.tree.branches.size(); ++i) {
      rows.push_back(output.prediction_rows[static_cast<size_t>(output.prediction_first[i])]);
      leaves.push_back(policy.trie()->FindLeaf(batch.tree.branches[i].tokens));
    }
    const at::Device device = output.hidden.device();
    losses.items =
        ItemLossSum(output.hidden.index_select(0, Upload(rows, device)), policy.ItemVectors(), Upload(leaves, device));
  }
  // Nearly every row predicts something: to pick those out would cost more than the logits of the others.
  const at::Tensor logits = policy.Logits(output.hidden);
  losses.tokens = policy.placement().takes_device_path() ? -TokenLogProbsByTensors(logits, *choice).full.sum()
                                                         : -ChosenLogProbs(logits, choice).full.sum();
  return losses;
}

absl::StatusOr<SftStepResult> SftStep(StepLanes& lanes, const Trie& trie, AdamW& optimizer, Collective& collective,
                                      const SftStepPlan& plan, const SftStepSettings& settings) {
  const double tokens = static_cast<double>(plan.targets) * trie.levels();
  const std::vector<const SftWindow*> windows = plan.OfRank(collective.rank(), collective.world_size());
  std::vector<int64_t> costs;
  for (const SftWindow* window : windows) costs.push_back(RowsOf(lanes.policy(0).config(), trie.levels(), *window));
  const std::vector<LaneRange> ranges = SplitByCost(costs, lanes.count());
  const bool with_items = settings.item_loss_weight > 0;
  std::vector<double> loss_sums(2 * ranges.size(), 0);  // of each lane: tokens, then items
  std::vector<at::Tensor> on_device(loss_sums.size());  // the same where nothing is read before the step's end
  SLUICE_RETURN_IF_ERROR(lanes.Run([&](int lane) -> absl::Status {
    Policy& policy = lanes.policy(lane);
    policy.gradients().zero_();
    const LaneRange range = ranges[static_cast<size_t>(lane)];
    size_t first = range.begin;
    while (first < range.end) {
      int64_t rows = 0;
      std::vector<const SftWindow*> part;
      while (first + part.size() < range.end) {
        const int64_t more = costs[first + part.size()];
        if (!part.empty() && rows + more > settings.max_rows / lanes.count()) break;
        rows += more;
        part.push_back(windows[first + part.size()]);
      }
      SLUICE_ASSIGN_OR_RETURN(const SftBatch batch, MakeSftBatch(policy, trie, part));
      // Each rank has dropout masks of its own, and so has each part.
      uint64_t seed = DeriveSeed(settings.dropout_seed, {static_cast<uint64_t>(collective.rank())});
      if (first > 0) seed = DeriveSeed(seed, {static_cast<uint64_t>(first)});
      SLUICE_ASSIGN_OR_RETURN(const SftLosses losses, SftLossSums(policy, batch, settings.dropout, seed, with_items));
      at::Tensor loss = losses.tokens;
      if (with_items) loss = loss + settings.item_loss_weight * losses.items;
      (loss / tokens).backward();
      size_t place = 2 * static_cast<size_t>(lane);
      for (const at::Tensor& one : {losses.tokens, losses.items}) {
        if (one.defined() && optimizer.by_tensors()) {
          at::Tensor& sum = on_device[place];
          sum = sum.defined() ? sum + one.detach().to(at::kDouble) : one.detach().to(at::kDouble);
        } else if (one.defined()) {
          loss_sums[place] += one.item<double>();
        }
        ++place;
      }
      first += part.size();
    }
    return absl::OkStatus();
  }));
  lanes.SumGradients();
  SLUICE_RETURN_IF_ERROR(collective.AllReduceSum(lanes.policy(0).gradients()));
  SftStepResult result;
  std::vector<double> total(2, 0.0);  // tokens, items
  if (optimizer.by_tensors()) {
    std::vector<at::Tensor> sums(2, at::zeros({}, lanes.policy(0).parameters().options().dtype(at::kDouble)));
    for (size_t i = 0; i < on_device.size(); ++i) {
      if (on_device[i].defined()) sums[i % 2] = sums[i % 2] + on_device[i];
    }
    sums.push_back(optimizer.Update(settings.learning_rate));
    const std::vector<double> numbers = FetchTogether(sums);  // all that the step reads
    std::copy(numbers.begin(), numbers.begin() + 2, total.begin());
    result.gradient_norm = numbers.back();
  }
  for (size_t i = 0; i < loss_sums.size(); ++i) total[i % 2] += loss_sums[i];
  SLUICE_RETURN_IF_ERROR(SumOverRanks(collective, &total));
  result.loss = total[0] / tokens;
  result.item_loss = total[1] / static_cast<double>(plan.targets);
  if (optimizer.by_tensors()) {
    SLUICE_RETURN_IF_ERROR(optimizer.Settle(result.gradient_norm));
    return result;
  }
  const ParallelFor on_lanes = [&](int64_t size, int64_t grain, const std::function<void(int64_t, int64_t)>& work) {
    lanes.ForRange(size, grain, work);
  };
  SLUICE_ASSIGN_OR_RETURN(result.gradient_norm, optimizer.Step(settings.learning_rate, on_lanes));
  return result;
}

absl::StatusOr<SftStepResult> SftStep(Policy& policy, const Trie& trie, AdamW& optimizer, Collective& collective,
                                      const SftStepPlan& plan, const SftStepSettings& settings) {
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<StepLanes> lane, StepLanes::Create(&policy, nullptr, 1));
  return SftStep(*lane, trie, optimizer, collective, plan, settings);
}

}  // namespace sluice::learner
