#include "common/log/one_line.h"

#include <algorithm>

namespace sluice {

std::string OneLine(absl::string_view text, size_t max_bytes) {
  size_t bytes = std::min(text.size(), max_bytes);
  while (bytes > 0 && bytes < text.size() && (static_cast<unsigned char>(text[bytes]) & 0xC0) == 0x80) --bytes;
  std::string line(text.substr(0, bytes));
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < ' ') c = ' ';
  }
  return line;
}

}  // namespace sluice
