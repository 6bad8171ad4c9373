// What Policy keeps behind its header.
#ifndef SLUICE_COMMON_MODEL_POLICY_INTERNALS_H_
#define SLUICE_COMMON_MODEL_POLICY_INTERNALS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "common/model/device_path.h"
#include "common/model/operations.h"
#include "common/model/parameters.h"
#include "common/model/policy.h"
#include "common/model/tree_layout.h"
#include "common/model/trie_tables.h"

namespace sluice {

struct Policy::Internals {
  ParameterMap map;
  PolicyWeights weights;
  // Grown to the longest position seen so far.
  RotaryTable rotary;
  // Computes instead of the processor's kernels where the placement says so; null otherwise.
  std::unique_ptr<DevicePath> device_path;
  Placement placement;
  // Of the catalog that was asked for last; null before, and once the policy is placed anew.
  std::shared_ptr<const TrieTables> trie_tables;

  HeadShape head_shape(const PolicyConfig& config) const {
    return {config.num_heads, config.num_kv_heads, config.head_dim};
  }
};

// cosine and sine of positions [0, count), computed in double. Source of the frequency scaling: Llama 3's
// `_compute_llama3_parameters` in transformers.
RotaryTable MakeRotaryTable(const PolicyConfig& config, int64_t count, at::ScalarType dtype);

// `table` made to reach `count` positions, at least doubled when it grows.
const RotaryTable& ReachPositions(const PolicyConfig& config, int64_t count, at::ScalarType dtype, RotaryTable* table);

TreeLimits LimitsOf(const PolicyConfig& config);

// The tokens of all leaves, [leaves, L].
std::vector<int32_t> LeafTokens(const Trie& trie);

}  // namespace sluice

#endif  // SLUICE_COMMON_MODEL_POLICY_INTERNALS_H_
