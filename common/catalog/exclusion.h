// Which trie leaves are kept out of a recommendation when certain items must not be in it.
#ifndef SLUICE_COMMON_CATALOG_EXCLUSION_H_
#define SLUICE_COMMON_CATALOG_EXCLUSION_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/catalog/trie.h"

namespace sluice {

// The leaves all of whose items are among `items`, ascending and distinct, as DecodePrompt::excluded_leaves wants them.
// A leaf that also holds another item stays: several items may share a semantic ID, and without it that one could never
// be recommended. `items` in any order, doubles allowed; each must be in the trie.
std::vector<int32_t> ExcludedLeaves(const Trie& trie, absl::Span<const int32_t> items);

}  // namespace sluice

#endif  // SLUICE_COMMON_CATALOG_EXCLUSION_H_
