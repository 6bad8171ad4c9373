// Ready-made semantic IDs from a JSON file: {"item": [12, 0, 255]} or {"item": ["<a_12>", "<b_0>", "<c_255>"]}.
#ifndef SLUICE_COMMON_CATALOG_SID_INDEX_H_
#define SLUICE_COMMON_CATALOG_SID_INDEX_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace sluice {

struct SidTable {
  int levels = 0;
  int codes = 0;
  std::vector<int32_t> item_codes;  // [items, levels]
};

// Codes of `item_names`, in their order. All items have the same number of levels, 2 to 4; in the text form the
// letter must be the level's (a, b, c, d). Items that share all codes keep them: a collision. Items of the file that
// are not asked for are ignored.
//
// NotFound: no such file. InvalidArgument: an item that the file lacks (named, with how many others), an item that
// comes twice, another number of levels, a code outside [0, codes), or another form.
absl::StatusOr<SidTable> ReadSidIndex(const std::string& path, absl::Span<const std::string> item_names, int codes);

}  // namespace sluice

#endif  // SLUICE_COMMON_CATALOG_SID_INDEX_H_
