// AdamW on flat arenas, its learning-rate schedule, and the clip by global norm.
#ifndef SLUICE_LEARNER_TRAIN_ADAMW_H_
#define SLUICE_LEARNER_TRAIN_ADAMW_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "absl/status/statusor.h"
#include "learner/options/options.h"
#include "learner/train/adamw_update.h"

namespace sluice::learner {

// Learning rate of the update that takes a job from `progress` in [0, 1] to `progress + share`: linear over the
// warm-up, by where the update ends, then half a cosine from the peak to final_fraction of it, by where it begins. Of a
// warm-up of n updates the first has 1/n of the peak: at 0, as schedules that count from 0 have it, it would change
// nothing.
double ScheduledLearningRate(const OptimizerOptions& options, double progress, double share);

// Calls work(begin, end) for runs that make up [0, size), on threads of its choice; each run but the last is a multiple
// of `grain`.
using ParallelFor =
    std::function<void(int64_t size, int64_t grain, const std::function<void(int64_t begin, int64_t end)>& work)>;
// On torch's threads.
void TorchParallelFor(int64_t size, int64_t grain, const std::function<void(int64_t begin, int64_t end)>& work);

// Decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2) with bias correction. State is two arenas of the
// parameters' size. Not thread-safe.
class AdamW {
 public:
  // All of one size and dtype (float32 or float64), contiguous, on one device, where the moments lie too; decay_mask is
  // 1 where decay applies. The tensors share storage with the policy's. by_tensors: as tensor operations on the
  // processor too, as on every other device.
  AdamW(at::Tensor parameters, at::Tensor gradients, at::Tensor decay_mask, const OptimizerOptions& options,
        bool by_tensors = false);

  // One update with the present gradients, scaled to norm <= clip_norm (0: never). Returns the norm before clipping.
  // Internal if it is not finite; nothing changes then: a step with a bad gradient must not reach the weights. The
  // result does not depend on the threads.
  absl::StatusOr<double> Step(double learning_rate, const ParallelFor& parallel_for = TorchParallelFor);

  // Step in two halves, for arenas that are updated by tensor operations: the host need not wait between them. Update
  // asks for everything and returns the norm before clipping, [] double on the device; Settle takes its value and
  // counts the step, or says why nothing changed. No other Update before.
  bool by_tensors() const { return by_tensors_; }
  at::Tensor Update(double learning_rate);
  absl::Status Settle(double norm);

  int64_t steps() const { return steps_; }
  at::Tensor first_moments() const { return first_; }
  at::Tensor second_moments() const { return second_; }
  // Puts a checkpoint's state back. InvalidArgument if sizes differ.
  absl::Status Restore(int64_t steps, const at::Tensor& first, const at::Tensor& second);

 private:
  // Of the step after the present ones.
  AdamWCoefficients Coefficients(double learning_rate) const;

  at::Tensor parameters_;
  at::Tensor gradients_;
  at::Tensor decay_mask_;
  at::Tensor first_;
  at::Tensor second_;
  const OptimizerOptions options_;
  const bool by_tensors_;
  int64_t steps_ = 0;
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_TRAIN_ADAMW_H_
