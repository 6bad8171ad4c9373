// Delays between attempts of a call, as a pure function: no clock, no entropy, no sleep.
#ifndef SLUICE_COMMON_TIME_BACKOFF_H_
#define SLUICE_COMMON_TIME_BACKOFF_H_

#include "absl/time/time.h"

namespace sluice {

struct BackoffOptions {
  absl::Duration first = absl::Milliseconds(20);  // before the first retry, at full jitter
  absl::Duration max = absl::Seconds(1);          // no delay is longer
  double multiplier = 2;                          // from one retry to the next
};

// The delay before retry `retry` (from 0): first * multiplier^retry, at most max, times a factor in [1/2, 1) set by
// `uniform` in [0, 1), so that clients that failed together do not come back together.
absl::Duration RetryDelay(int retry, double uniform, const BackoffOptions& options);

}  // namespace sluice

#endif  // SLUICE_COMMON_TIME_BACKOFF_H_
