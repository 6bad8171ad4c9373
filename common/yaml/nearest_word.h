// Suggestions for words that were written wrongly.
#ifndef SLUICE_COMMON_YAML_NEAREST_WORD_H_
#define SLUICE_COMMON_YAML_NEAREST_WORD_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace sluice {

// The candidate nearest to `word` in edits, if near enough to be a slip of the
// hand; else "".
std::string NearestWord(absl::string_view word, const std::vector<std::string>& candidates);

}  // namespace sluice

#endif  // SLUICE_COMMON_YAML_NEAREST_WORD_H_
