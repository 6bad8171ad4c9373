#include "common/catalog/exclusion.h"

#include <algorithm>

namespace sluice {

std::vector<int32_t> ExcludedLeaves(const Trie& trie, absl::Span<const int32_t> items) {
  std::vector<int32_t> excluded(items.begin(), items.end());
  std::sort(excluded.begin(), excluded.end());
  excluded.erase(std::unique(excluded.begin(), excluded.end()), excluded.end());

  std::vector<int32_t> leaves;
  for (const int32_t item : excluded) {
    const int32_t leaf = trie.LeafOfItem(item);
    const absl::Span<const int32_t> sharers = trie.ItemsOfLeaf(leaf);
    const bool all = std::all_of(sharers.begin(), sharers.end(), [&excluded](int32_t sharer) {
      return std::binary_search(excluded.begin(), excluded.end(), sharer);
    });
    if (all) leaves.push_back(leaf);
  }
  std::sort(leaves.begin(), leaves.end());
  leaves.erase(std::unique(leaves.begin(), leaves.end()), leaves.end());
  return leaves;
}

}  // namespace sluice
