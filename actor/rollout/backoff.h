// Delays between attempts of a call, as a pure function.
#ifndef SLUICE_ACTOR_ROLLOUT_BACKOFF_H_
#define SLUICE_ACTOR_ROLLOUT_BACKOFF_H_

#include "absl/time/time.h"

namespace sluice::actor {

struct BackoffOptions {
  absl::Duration first = absl::Milliseconds(20);  // before the first retry, at full jitter
  absl::Duration max = absl::Seconds(1);          // no delay is longer
};

// The delay before retry `retry` (from 0): first * 2^retry, at most max, times
// a factor in [1/2, 1) set by `uniform` in [0, 1), so that actors which failed
// together do not come back together.
absl::Duration RetryDelay(int retry, double uniform, const BackoffOptions& options);

}  // namespace sluice::actor

#endif  // SLUICE_ACTOR_ROLLOUT_BACKOFF_H_
