// AdamW's update as tensor operations, for arenas that lie on a device. Nothing is read back: whether the gradients are
// finite, and how far they are clipped, is decided there.
#ifndef SLUICE_LEARNER_TRAIN_ADAMW_TENSORS_H_
#define SLUICE_LEARNER_TRAIN_ADAMW_TENSORS_H_

#include <ATen/core/Tensor.h>

#include "learner/train/adamw_update.h"

namespace sluice::learner {

// Euclidean norm, summed in double. [] double on the gradients' device.
at::Tensor NormByTensors(const at::Tensor& gradients);

// As UpdateAdamW over whole arenas, but the gradients' scale comes from their `norm`, [] double on the device: at most
// `clip_norm` is left of it (0: all). Changes nothing if the norm is not finite.
void UpdateAdamWByTensors(const AdamWCoefficients& coefficients, double clip_norm, const at::Tensor& norm,
                          const at::Tensor& parameters, const at::Tensor& gradients, const at::Tensor& decay_mask,
                          const at::Tensor& first, const at::Tensor& second);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_TRAIN_ADAMW_TENSORS_H_
