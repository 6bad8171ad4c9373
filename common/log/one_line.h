// Texts of others in lines of ours.
#ifndef SLUICE_COMMON_LOG_ONE_LINE_H_
#define SLUICE_COMMON_LOG_ONE_LINE_H_

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace sluice {

// At most `max_bytes` of it, cut before a character of UTF-8 and not in it, with a space for each control character.
std::string OneLine(absl::string_view text, size_t max_bytes);

}  // namespace sluice

#endif  // SLUICE_COMMON_LOG_ONE_LINE_H_
