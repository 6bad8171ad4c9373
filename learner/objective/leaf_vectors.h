// A vector for every leaf of the trie, which rewards by likeness compare.
#ifndef SLUICE_LEARNER_OBJECTIVE_LEAF_VECTORS_H_
#define SLUICE_LEARNER_OBJECTIVE_LEAF_VECTORS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace sluice::learner {

struct LeafVectors {
  int64_t width = 0;
  std::vector<float> values;  // [leaves, width]

  // `leaf` must be one of them.
  absl::Span<const float> Of(int32_t leaf) const {
    return absl::MakeConstSpan(values).subspan(static_cast<size_t>(leaf) * static_cast<size_t>(width),
                                               static_cast<size_t>(width));
  }
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_OBJECTIVE_LEAF_VECTORS_H_
