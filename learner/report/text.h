// Text and numbers as HTML shows them.
#ifndef SLUICE_LEARNER_REPORT_TEXT_H_
#define SLUICE_LEARNER_REPORT_TEXT_H_

#include <string>

#include "absl/strings/string_view.h"

namespace sluice::learner {

// Text safe inside elements and quoted attributes. Bytes that are not UTF-8, and control characters but for tab and
// newline, become U+FFFD.
std::string EscapeHtml(absl::string_view text);

// A number for people: four significant digits, integers up to 10^15 in full with thin spaces between thousands,
// "-" for what is not finite.
std::string FormatNumber(double value);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_REPORT_TEXT_H_
