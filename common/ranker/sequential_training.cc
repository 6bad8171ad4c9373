#include "common/ranker/sequential_training.h"

#include <ATen/CPUGeneratorImpl.h>
#include <torch/optim/adamw.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/random/random.h"
#include "common/status/exit_code.h"
#include "common/status/status.h"
#include "common/tensor/catch_torch.h"

namespace sluice {
namespace {

// Labels of DeriveSeed.
constexpr uint64_t kInitialWeights = 1, kOrder = 2, kOffsets = 3, kDropout = 4;
constexpr double kWarmupFraction = 0.03;
constexpr double kFinalFraction = 0.1;

// Inputs, and the targets that follow the last `targets.size()` of them.
struct Piece {
  std::vector<int32_t> inputs;
  std::vector<int32_t> targets;
};

// Cuts a sequence so that every event but the first is a target exactly once. `offset` in [0, window / 2) moves the
// cuts. Short sequences are one piece.
void CutSequence(const std::vector<int32_t>& sequence, size_t window, size_t offset, std::vector<Piece>* pieces) {
  const size_t count = sequence.size();
  if (count < 2) return;
  const auto add = [&](size_t begin, size_t end) {  // targets [begin, end)
    const size_t inputs_end = end - 1;
    const size_t inputs_begin = inputs_end > window ? inputs_end - window : 0;
    pieces->push_back({.inputs = {sequence.begin() + static_cast<std::ptrdiff_t>(inputs_begin),
                                  sequence.begin() + static_cast<std::ptrdiff_t>(inputs_end)},
                       .targets = {sequence.begin() + static_cast<std::ptrdiff_t>(begin),
                                   sequence.begin() + static_cast<std::ptrdiff_t>(end)}});
  };
  if (count - 1 <= window) return add(1, count);
  // Pieces of half a window: every target of a later piece sees at least half a window of history.
  const size_t stride = std::max<size_t>(1, window / 2);
  size_t begin = 1;
  size_t end = 1 + (offset == 0 ? stride : std::min(offset, stride));
  while (begin < count) {
    end = std::min(end, count);
    add(begin, end);
    begin = end;
    end = begin + stride;
  }
}

double RateFactor(double done) {  // done in [0, 1]: share of the planned steps
  if (done < kWarmupFraction) return std::max(done / kWarmupFraction, 0.01);
  const double share = (done - kWarmupFraction) / (1 - kWarmupFraction);
  return kFinalFraction + (1 - kFinalFraction) * 0.5 * (1 + std::cos(M_PI * std::min(share, 1.0)));
}

absl::Status CheckSequences(absl::Span<const std::vector<int32_t>> sequences, int64_t num_items) {
  bool any = false;
  for (size_t row = 0; row < sequences.size(); ++row) {
    any = any || sequences[row].size() >= 2;
    for (const int32_t item : sequences[row]) {
      if (item < 0 || item >= num_items) {
        return absl::InvalidArgumentError(
            absl::StrCat("sequence ", row, " names item ", item, ", want items 0 to ", num_items - 1));
      }
    }
  }
  if (!any) return absl::InvalidArgumentError("the sequential ranker wants at least one user with two training events");
  return absl::OkStatus();
}

// One training run; plain torch, exceptions are caught by the caller.
class Trainer {
 public:
  Trainer(absl::Span<const std::vector<int32_t>> sequences, const SequentialTrainingOptions& options,
          SequentialRanker* ranker)
      : sequences_(sequences),
        options_(options),
        ranker_(ranker),
        dropout_(at::detail::createCPUGenerator(DeriveSeed(options.seed, {kDropout}))) {
    std::vector<at::Tensor> parameters;
    for (const auto& [name, weight] : ranker->Weights()) {
      weight.set_requires_grad(true);
      parameters.push_back(weight);
    }
    optimizer_ = std::make_unique<torch::optim::AdamW>(
        parameters, torch::optim::AdamWOptions(options.learning_rate).weight_decay(options.weight_decay));
  }

  ~Trainer() {
    for (const auto& [name, weight] : ranker_->Weights()) {
      weight.mutable_grad() = at::Tensor();
      weight.set_requires_grad(false);
    }
  }

  // The pieces of a pass (from 0) in their order.
  std::vector<Piece> PiecesOfPass(int pass) const {
    std::vector<Piece> cut;
    Random offsets(DeriveSeed(options_.seed, {kOffsets, static_cast<uint64_t>(pass)}));
    const size_t window = static_cast<size_t>(ranker_->config().max_positions);
    for (const std::vector<int32_t>& sequence : sequences_) {
      CutSequence(sequence, window, offsets.Below(std::max<size_t>(1, window / 2)), &cut);
    }
    std::vector<Piece> ordered;
    ordered.reserve(cut.size());
    const uint64_t seed = DeriveSeed(options_.seed, {kOrder, static_cast<uint64_t>(pass)});
    for (size_t i = 0; i < cut.size(); ++i) ordered.push_back(std::move(cut[PermutedIndex(seed, cut.size(), i)]));
    return ordered;
  }

  double Step(absl::Span<const Piece> pieces, double rate_factor) {
    for (auto& group : optimizer_->param_groups()) {
      static_cast<torch::optim::AdamWOptions&>(group.options()).lr(options_.learning_rate * rate_factor);
    }
    std::vector<std::vector<int32_t>> inputs;
    std::vector<int64_t> rows, targets;
    int64_t first = 0;
    for (const Piece& piece : pieces) {
      const int64_t length = static_cast<int64_t>(piece.inputs.size());
      const int64_t count = static_cast<int64_t>(piece.targets.size());
      for (int64_t i = 0; i < count; ++i) rows.push_back(first + length - count + i);
      targets.insert(targets.end(), piece.targets.begin(), piece.targets.end());
      first += length;
      inputs.push_back(piece.inputs);
    }
    optimizer_->zero_grad();
    at::Tensor hidden = ranker_->Forward(inputs, options_.dropout, dropout_);
    if (static_cast<int64_t>(rows.size()) != first) hidden = hidden.index_select(0, torch::tensor(rows, at::kLong));
    const at::Tensor loss =
        at::cross_entropy_loss(at::matmul(hidden, ranker_->item_embedding().t()), torch::tensor(targets, at::kLong));
    const double value = loss.item<double>();
    if (!std::isfinite(value)) return value;  // the weights stay as they were
    loss.backward();
    optimizer_->step();
    return value;
  }

 private:
  const absl::Span<const std::vector<int32_t>> sequences_;
  const SequentialTrainingOptions& options_;
  SequentialRanker* const ranker_;
  at::Generator dropout_;
  std::unique_ptr<torch::optim::AdamW> optimizer_;
};

}  // namespace

absl::Status SequentialTrainingOptions::Validate() const {
  const auto wrong = [](const char* field, const char* want, double got) {
    return absl::InvalidArgumentError(absl::StrCat("sequential ranker: want ", field, " ", want, ", got ", got));
  };
  if (passes < 1) return wrong("passes", "of at least 1", passes);
  if (!(learning_rate >= 0 && std::isfinite(learning_rate))) {
    return wrong("learning_rate", "of at least 0", learning_rate);
  }
  if (!(dropout >= 0 && dropout < 1)) return wrong("dropout", "in [0, 1)", dropout);
  if (!(weight_decay >= 0 && std::isfinite(weight_decay))) return wrong("weight_decay", "of at least 0", weight_decay);
  if (batch_sequences < 1) return wrong("batch_sequences", "of at least 1", batch_sequences);
  return absl::OkStatus();
}

absl::StatusOr<SequentialTrainingResult> TrainSequentialRanker(absl::Span<const std::vector<int32_t>> sequences,
                                                               const SequentialRankerConfig& config,
                                                               const SequentialTrainingOptions& options,
                                                               const NowFunction& now,
                                                               const SequentialTrainingCallback& progress,
                                                               const std::function<bool()>& stop) {
  SLUICE_RETURN_IF_ERROR(options.Validate());
  SLUICE_RETURN_IF_ERROR(CheckSequences(sequences, config.num_items));
  SequentialTrainingResult result;
  SLUICE_ASSIGN_OR_RETURN(result.ranker, SequentialRanker::Create(config, DeriveSeed(options.seed, {kInitialWeights})));
  const absl::Time start = now();
  const bool limited = options.time_limit > absl::ZeroDuration();
  const size_t batch = static_cast<size_t>(options.batch_sequences);
  SLUICE_RETURN_IF_ERROR(CatchTorch("training the sequential ranker", [&]() -> absl::Status {
    const at::AutoGradMode grad_mode(true);
    Trainer trainer(sequences, options, result.ranker.get());
    int planned = options.passes;
    for (int pass = 0; pass < planned && !result.stopped; ++pass) {
      const std::vector<Piece> pieces = trainer.PiecesOfPass(pass);
      const size_t steps = (pieces.size() + batch - 1) / batch;
      double loss_sum = 0;
      size_t step = 0;
      for (; step < steps; ++step) {
        if ((stop && stop()) || (limited && now() - start >= options.time_limit)) {
          result.stopped = true;
          break;
        }
        const double done = (pass + static_cast<double>(step) / static_cast<double>(steps)) / planned;
        const size_t first = step * batch;
        const double loss = trainer.Step(absl::MakeSpan(pieces).subspan(first, std::min(batch, pieces.size() - first)),
                                         RateFactor(done));
        if (!std::isfinite(loss)) {
          return HeldError(absl::StrCat("training of the sequential ranker diverged at step ", result.steps + 1,
                                        ": the loss is not finite; lower its learning rate"));
        }
        loss_sum += loss;
        ++result.steps;
        if (progress) {
          progress({.pass = pass + 1,
                    .passes = planned,
                    .step = result.steps,
                    .total_steps = result.steps + static_cast<int64_t>(steps - step - 1) +
                                   static_cast<int64_t>(steps) * (planned - pass - 1),
                    .loss = loss});
        }
      }
      if (step > 0) result.final_loss = loss_sum / static_cast<double>(step);
      if (result.stopped) break;
      ++result.passes;
      if (pass == 0 && limited) {
        const double passes_that_fit =
            absl::FDivDuration(options.time_limit, std::max(now() - start, absl::Nanoseconds(1)));
        if (passes_that_fit < planned) planned = std::max(1, static_cast<int>(passes_that_fit));
      }
    }
    if (result.passes < options.passes) result.stopped = true;
    return absl::OkStatus();
  }));
  return result;
}

}  // namespace sluice
