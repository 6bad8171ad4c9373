// Training of the sequential ranker: next-item cross-entropy over the whole catalog, at every position.
//
// loss = mean over targets t of -log softmax(hidden_t x item_embedding^T)[item_t]
//
// A sequence longer than the window is cut into pieces at a random offset that changes every pass; each piece still
// sees a full window of context, and every event but a sequence's first is a target once a pass. AdamW; the rate rises
// over the first 3 % of the steps and falls by a cosine to a tenth of its peak. Weights, order and dropout are
// functions of the seed.
#ifndef SLUICE_COMMON_RANKER_SEQUENTIAL_TRAINING_H_
#define SLUICE_COMMON_RANKER_SEQUENTIAL_TRAINING_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/ranker/sequential_ranker.h"
#include "common/time/clock.h"

namespace sluice {

struct SequentialTrainingOptions {
  int passes = 10;              // over all sequences
  double learning_rate = 1e-3;  // peak
  double dropout = 0.2;
  double weight_decay = 0.01;
  int batch_sequences = 128;  // pieces of sequences a step
  // Zero: none. If the first pass shows that not all passes fit, their number is cut to what does, so that the rate
  // still falls to its end. Training also ends at the first step past the limit.
  absl::Duration time_limit = absl::ZeroDuration();
  uint64_t seed = 1;

  // InvalidArgument naming the field.
  absl::Status Validate() const;
};

struct SequentialTrainingProgress {
  int pass = 0;             // from 1
  int passes = 0;           // planned
  int64_t step = 0;         // from 1, over all passes
  int64_t total_steps = 0;  // planned; changes a little from pass to pass if sequences are cut
  double loss = 0;          // of this step, nats a target
};

struct SequentialTrainingResult {
  std::unique_ptr<SequentialRanker> ranker;
  int64_t steps = 0;
  int passes = 0;         // completed
  double final_loss = 0;  // mean over the last pass that was begun
  bool stopped = false;   // ended early: `stop` or the time limit
};

// Called after every step, on the calling thread.
using SequentialTrainingCallback = std::function<void(const SequentialTrainingProgress&)>;

// `progress` and `stop` may be empty; `stop` is asked before every step and ends training well.
// InvalidArgument: bad options, an item outside the catalog, no sequence of two items or more. HeldError: the loss is
// not finite. ResourceExhausted: out of memory.
absl::StatusOr<SequentialTrainingResult> TrainSequentialRanker(absl::Span<const std::vector<int32_t>> sequences,
                                                               const SequentialRankerConfig& config,
                                                               const SequentialTrainingOptions& options,
                                                               const NowFunction& now,
                                                               const SequentialTrainingCallback& progress = nullptr,
                                                               const std::function<bool()>& stop = nullptr);

}  // namespace sluice

#endif  // SLUICE_COMMON_RANKER_SEQUENTIAL_TRAINING_H_
