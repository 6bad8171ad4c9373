#include "learner/report/text.h"

#include <cmath>
#include <cstdint>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace sluice::learner {
namespace {

constexpr char kReplacement[] = "\xEF\xBF\xBD";
constexpr char kThinSpace[] = "\xE2\x80\x89";

// Length of the well-formed UTF-8 sequence at the start of `text`; 0: there is none.
size_t Utf8Length(absl::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return 1;
  const size_t length = lead >= 0xC2 && lead <= 0xDF   ? 2
                        : (lead & 0xF0) == 0xE0        ? 3
                        : lead >= 0xF0 && lead <= 0xF4 ? 4
                                                       : 0;
  if (length == 0 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  // Overlong forms, surrogates, beyond U+10FFFF.
  if ((lead == 0xE0 && byte(1) < 0xA0) || (lead == 0xED && byte(1) > 0x9F)) return 0;
  if ((lead == 0xF0 && byte(1) < 0x90) || (lead == 0xF4 && byte(1) > 0x8F)) return 0;
  return length;
}

}  // namespace

std::string EscapeHtml(absl::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const size_t length = Utf8Length(text);
    const char c = text[0];
    if (length > 1) {
      absl::StrAppend(&out, text.substr(0, length));
    } else if (length == 0 || (static_cast<uint8_t>(c) < 0x20 && c != '\n' && c != '\t') || c == 0x7F) {
      out += kReplacement;
    } else if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (c == '"') {
      out += "&quot;";
    } else if (c == '\'') {
      out += "&#39;";
    } else {
      out += c;
    }
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return out;
}

std::string FormatNumber(double value) {
  if (!std::isfinite(value)) return "-";
  if (value == 0) return "0";
  if (value == std::floor(value) && std::fabs(value) < 1e15) {
    const std::string digits = absl::StrCat(static_cast<int64_t>(std::fabs(value)));
    std::string out = value < 0 ? "-" : "";
    for (size_t i = 0; i < digits.size(); ++i) {
      // Four digits read well without a gap.
      if (digits.size() > 4 && i > 0 && (digits.size() - i) % 3 == 0) out += kThinSpace;
      out += digits[i];
    }
    return out;
  }
  return absl::StrFormat("%.4g", value);
}

}  // namespace sluice::learner
