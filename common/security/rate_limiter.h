// How often each of many callers may do something: a bucket of permits a caller, filled at a steady rate.
#ifndef SLUICE_COMMON_SECURITY_RATE_LIMITER_H_
#define SLUICE_COMMON_SECURITY_RATE_LIMITER_H_

#include <cstddef>
#include <string>
#include <unordered_map>
#include <utility>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/sync/mutex.h"
#include "common/time/clock.h"

namespace sluice {

struct RateLimiterOptions {
  double per_second = 200;  // permits that come back
  double burst = 400;       // permits that a caller who was quiet has
  // Callers remembered at most. When there are more, those with a full bucket are forgotten, which changes nothing for
  // them; if all are busy, all are, and start anew.
  size_t max_callers = 10000;
};

// Thread-safe.
class RateLimiter {
 public:
  // `now` must not jump when a clock is set.
  RateLimiter(RateLimiterOptions options, NowFunction now) : options_(options), now_(std::move(now)) {}

  // Takes a permit of `caller` and returns zero; or takes none, and returns how long to wait for the next one.
  absl::Duration Take(absl::string_view caller);

 private:
  struct Bucket {
    double permits = 0;
    absl::Time filled;
  };
  double PermitsLocked(const Bucket& bucket, absl::Time now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ForgetLocked(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const RateLimiterOptions options_;
  const NowFunction now_;
  Mutex mutex_;
  std::unordered_map<std::string, Bucket> buckets_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace sluice

#endif  // SLUICE_COMMON_SECURITY_RATE_LIMITER_H_
