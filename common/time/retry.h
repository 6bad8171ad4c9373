// Retries of idempotent calls: jittered exponential backoff inside one total time budget.
#ifndef SLUICE_COMMON_TIME_RETRY_H_
#define SLUICE_COMMON_TIME_RETRY_H_

#include <functional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "common/random/random.h"
#include "common/time/clock.h"

namespace sluice {

struct RetryOptions {
  absl::Duration initial_backoff = absl::Milliseconds(100);
  absl::Duration max_backoff = absl::Seconds(5);
  double multiplier = 2;
  // Deadline of one attempt; the last attempts get what is left of the budget.
  absl::Duration attempt_timeout = absl::Seconds(5);
  // The budget: attempts and waits together.
  absl::Duration total_timeout = absl::Seconds(30);
};

// Whether asking the same again may help: Unavailable, DeadlineExceeded, ResourceExhausted, but not a full disk here
// (NoSpaceError).
bool IsRetryable(const absl::Status& status);

// Wait before retry `retry` (from 1): initial * multiplier^(retry - 1), at most max_backoff, times a factor in
// [0.5, 1) from `uniform` in [0, 1), so that clients that failed together do not come back together.
absl::Duration BackoffDelay(const RetryOptions& options, int retry, double uniform);

// Waits; returns false if the caller is to give up instead (its process stops, say).
using WaitFunction = std::function<bool(absl::Duration)>;

// Calls `call` with its attempt's deadline until it succeeds, fails for good, or the budget is spent; then the last
// error is returned, with the number of attempts. Cancelled if `wait` said so. `call` must be idempotent.
absl::Status CallWithRetry(const RetryOptions& options, const NowFunction& now, const WaitFunction& wait,
                           Random* random, const std::function<absl::Status(absl::Duration timeout)>& call);

}  // namespace sluice

#endif  // SLUICE_COMMON_TIME_RETRY_H_
