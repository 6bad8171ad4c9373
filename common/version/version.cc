#include "common/version/version.h"

namespace sluice {

absl::string_view ReleaseVersion() { return SLUICE_VERSION; }

}  // namespace sluice
