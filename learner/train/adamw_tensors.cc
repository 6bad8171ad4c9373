#include "learner/train/adamw_tensors.h"

#include <torch/types.h>

#include <algorithm>

namespace sluice::learner {
namespace {

// Elements at a time: what lies between the operations takes a few times this much memory, not as much as the arenas.
constexpr int64_t kChunk = int64_t{1} << 24;

template <typename Work>
void InChunks(int64_t size, const Work& work) {
  for (int64_t first = 0; first < size; first += kChunk) work(first, std::min(kChunk, size - first));
}

}  // namespace

at::Tensor NormByTensors(const at::Tensor& gradients) {
  const at::NoGradGuard no_grad;
  at::Tensor sum = at::zeros({}, gradients.options().dtype(at::kDouble));
  InChunks(gradients.numel(), [&](int64_t first, int64_t count) {
    sum = sum + gradients.narrow(0, first, count).to(at::kDouble).square().sum();
  });
  return sum.sqrt();
}

void UpdateAdamWByTensors(const AdamWCoefficients& c, double clip_norm, const at::Tensor& norm,
                          const at::Tensor& parameters, const at::Tensor& gradients, const at::Tensor& decay_mask,
                          const at::Tensor& first, const at::Tensor& second) {
  const at::NoGradGuard no_grad;
  const at::Tensor finite = norm.isfinite();
  const at::Tensor scale = clip_norm > 0 ? (clip_norm / norm).clamp_max(1) : at::ones_like(norm);
  InChunks(parameters.numel(), [&](int64_t begin, int64_t count) {
    const auto part = [&](const at::Tensor& arena) { return arena.narrow(0, begin, count); };
    at::Tensor p = part(parameters), m = part(first), v = part(second);
    const at::Tensor g = part(gradients) * scale.to(gradients.scalar_type());
    const at::Tensor next_m = m * c.beta1 + g * (1 - c.beta1);
    const at::Tensor next_v = v * c.beta2 + g * g * (1 - c.beta2);
    const at::Tensor update = next_m * c.correction1 / ((next_v * c.correction2).sqrt() + c.epsilon);
    const at::Tensor next_p = p - (update * c.rate + part(decay_mask) * p * c.decay);
    // Not by a factor of 0: what is not a number would stay one.
    p.copy_(at::where(finite, next_p, p));
    m.copy_(at::where(finite, next_m, m));
    v.copy_(at::where(finite, next_v, v));
  });
}

}  // namespace sluice::learner
