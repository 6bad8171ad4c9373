#include "common/security/rate_limiter.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace sluice {

double RateLimiter::PermitsLocked(const Bucket& bucket, absl::Time now) const {
  return std::min(options_.burst, bucket.permits + options_.per_second * absl::ToDoubleSeconds(now - bucket.filled));
}

void RateLimiter::ForgetLocked(absl::Time now) {
  for (auto bucket = buckets_.begin(); bucket != buckets_.end();) {
    bucket = PermitsLocked(bucket->second, now) >= options_.burst ? buckets_.erase(bucket) : std::next(bucket);
  }
  if (buckets_.size() >= options_.max_callers) buckets_.clear();
}

absl::Duration RateLimiter::Take(absl::string_view caller) {
  const absl::Time now = now_();
  MutexLock lock(&mutex_);
  std::string key(caller);
  auto found = buckets_.find(key);
  if (found == buckets_.end()) {
    if (buckets_.size() >= options_.max_callers) ForgetLocked(now);
    found = buckets_.emplace(std::move(key), Bucket{options_.burst, now}).first;
  }
  Bucket& bucket = found->second;
  bucket.permits = PermitsLocked(bucket, now);
  bucket.filled = now;
  if (bucket.permits < 1) return absl::Seconds((1 - bucket.permits) / options_.per_second);
  bucket.permits -= 1;
  return absl::ZeroDuration();
}

}  // namespace sluice
