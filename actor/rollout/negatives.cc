#include "actor/rollout/negatives.h"

#include <algorithm>
#include <utility>

#include "common/random/random.h"

namespace sluice::actor {

std::vector<int32_t> DrawNegatives(absl::Span<const std::vector<int32_t>> generated, size_t own, int32_t target_leaf,
                                   int count, uint64_t seed) {
  std::vector<int32_t> taken = generated[own];
  taken.push_back(target_leaf);
  std::sort(taken.begin(), taken.end());

  std::vector<int32_t> pool;
  for (size_t b = 0; b < generated.size(); ++b) {
    if (b == own) continue;
    for (const int32_t leaf : generated[b]) {
      if (!std::binary_search(taken.begin(), taken.end(), leaf)) pool.push_back(leaf);
    }
  }
  std::sort(pool.begin(), pool.end());
  pool.erase(std::unique(pool.begin(), pool.end()), pool.end());

  // The first `count` places of a Fisher-Yates shuffle.
  Random random(seed);
  const size_t drawn = std::min(pool.size(), static_cast<size_t>(std::max(count, 0)));
  for (size_t i = 0; i < drawn; ++i) std::swap(pool[i], pool[i + random.Below(pool.size() - i)]);
  pool.resize(drawn);
  return pool;
}

}  // namespace sluice::actor
