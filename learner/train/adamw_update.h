// The inner loop of AdamW, in a file of its own so that it is compiled for speed. Sees no tensors.
#ifndef SLUICE_LEARNER_TRAIN_ADAMW_UPDATE_H_
#define SLUICE_LEARNER_TRAIN_ADAMW_UPDATE_H_

#include <cstdint>

namespace sluice::learner {

struct AdamWCoefficients {
  double scale = 1;  // of gradients
  double rate = 0;
  double decay = 0;  // learning rate times weight decay
  double beta1 = 0;
  double beta2 = 0;
  double correction1 = 1;  // 1 / (1 - beta1^t)
  double correction2 = 1;
  double epsilon = 0;
};

// Updates elements [begin, end) of the parameters p and moments m, v from gradients g; mask is 1 where decay applies.
// One pass over memory: a chain of tensor calls would read and write each arena many times. T: float or double.
template <typename T>
void UpdateAdamW(int64_t begin, int64_t end, const AdamWCoefficients& coefficients, T* p, const T* g, const T* mask,
                 T* m, T* v);

// Sum of squares of elements [begin, end), in double: a running float sum of millions of squares loses the small ones
// (1e-3 of the norm at 6 million parameters). T: float or double.
template <typename T>
double SumOfSquares(int64_t begin, int64_t end, const T* values);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_TRAIN_ADAMW_UPDATE_H_
