#include "common/collective/sums.h"

#include <torch/types.h>

#include <cstdint>

namespace sluice {

absl::Status SumOverRanks(Collective& collective, std::vector<double>* values) {
  // The tensor shares the vector's memory: the sum arrives in place.
  return collective.AllReduceSum(
      torch::from_blob(values->data(), {static_cast<int64_t>(values->size())}, torch::kDouble));
}

}  // namespace sluice
