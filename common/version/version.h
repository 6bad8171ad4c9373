// The release that this program belongs to.
#ifndef SLUICE_COMMON_VERSION_VERSION_H_
#define SLUICE_COMMON_VERSION_VERSION_H_

#include "absl/strings/string_view.h"

namespace sluice {

// "0.1.0", from the top CMakeLists.txt.
absl::string_view ReleaseVersion();

}  // namespace sluice

#endif  // SLUICE_COMMON_VERSION_VERSION_H_
