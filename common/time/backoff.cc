#include "common/time/backoff.h"

#include <algorithm>
#include <cmath>

namespace sluice {

absl::Duration RetryDelay(int retry, double uniform, const BackoffOptions& options) {
  // 60 doublings of any sensible first delay are beyond any sensible maximum; keeps pow finite.
  const double growth = std::pow(options.multiplier, std::clamp(retry, 0, 60));
  const double seconds = std::min(absl::ToDoubleSeconds(options.first) * growth, absl::ToDoubleSeconds(options.max));
  return absl::Seconds(seconds * (0.5 + 0.5 * uniform));
}

}  // namespace sluice
