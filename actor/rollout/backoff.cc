#include "actor/rollout/backoff.h"

#include <algorithm>
#include <cmath>

namespace sluice::actor {

absl::Duration RetryDelay(int retry, double uniform, const BackoffOptions& options) {
  // 2^30 times any sensible first delay is beyond any sensible maximum; more
  // would overflow to infinity times zero.
  const double doublings = std::clamp(retry, 0, 30);
  const absl::Duration full = std::min(options.first * std::exp2(doublings), options.max);
  return full * (0.5 + 0.5 * uniform);
}

}  // namespace sluice::actor
