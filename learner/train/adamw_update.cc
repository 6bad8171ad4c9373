#include "learner/train/adamw_update.h"

#include <cmath>

namespace sluice::learner {

template <typename T>
void UpdateAdamW(int64_t begin, int64_t end, const AdamWCoefficients& c, T* __restrict p, const T* __restrict g,
                 const T* __restrict mask, T* __restrict m, T* __restrict v) {
  const T scale = c.scale, rate = c.rate, decay = c.decay, beta1 = c.beta1, beta2 = c.beta2;
  const T rest1 = 1 - c.beta1, rest2 = 1 - c.beta2, correction1 = c.correction1, correction2 = c.correction2;
  const T epsilon = c.epsilon;
  for (int64_t i = begin; i < end; ++i) {
    const T gradient = g[i] * scale;
    m[i] = beta1 * m[i] + rest1 * gradient;
    v[i] = beta2 * v[i] + rest2 * gradient * gradient;
    const T update = m[i] * correction1 / (std::sqrt(v[i] * correction2) + epsilon);
    p[i] -= rate * update + decay * mask[i] * p[i];
  }
}

template void UpdateAdamW<float>(int64_t, int64_t, const AdamWCoefficients&, float*, const float*, const float*, float*,
                                 float*);
template void UpdateAdamW<double>(int64_t, int64_t, const AdamWCoefficients&, double*, const double*, const double*,
                                  double*, double*);

}  // namespace sluice::learner
