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

template <typename T>
double SumOfSquares(int64_t begin, int64_t end, const T* __restrict values) {
  constexpr int kLanes = 16;  // sums of their own, which the compiler keeps in vectors
  double sums[kLanes] = {};
  int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const double value = values[i + lane];
      sums[lane] += value * value;
    }
  }
  double sum = 0;
  for (const double of_lane : sums) sum += of_lane;
  for (; i < end; ++i) sum += static_cast<double>(values[i]) * values[i];
  return sum;
}

template double SumOfSquares<float>(int64_t, int64_t, const float*);
template double SumOfSquares<double>(int64_t, int64_t, const double*);
template void UpdateAdamW<float>(int64_t, int64_t, const AdamWCoefficients&, float*, const float*, const float*, float*,
                                 float*);
template void UpdateAdamW<double>(int64_t, int64_t, const AdamWCoefficients&, double*, const double*, const double*,
                                  double*, double*);

}  // namespace sluice::learner
