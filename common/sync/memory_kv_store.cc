#include "common/sync/memory_kv_store.h"

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/status/status.h"
#include "common/time/clock.h"

namespace sluice {

absl::Status MemoryKvStore::SetLocked(const std::string& key, const std::string& value) {
  if (key.empty()) return absl::InvalidArgumentError("want a key, got an empty one");
  if (value.size() > options_.max_value_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("want a value of at most ", options_.max_value_bytes, " bytes for ", key, ", got ", value.size()));
  }
  const auto found = values_.find(key);
  const size_t before = found == values_.end() ? 0 : key.size() + found->second.size();
  const size_t after = bytes_ - before + key.size() + value.size();
  if ((found == values_.end() && values_.size() >= options_.max_keys) || after > options_.max_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the rendezvous store is full: ", values_.size(), " keys, ", bytes_, " bytes"));
  }
  bytes_ = after;
  values_[key] = value;
  changed_.NotifyAll();
  return absl::OkStatus();
}

absl::Status MemoryKvStore::Set(const std::string& key, const std::string& value) {
  MutexLock lock(&mutex_);
  return SetLocked(key, value);
}

absl::StatusOr<std::string> MemoryKvStore::Get(const std::string& key, absl::Duration timeout) {
  const absl::Time deadline = MonotonicNow() + timeout;
  MutexLock lock(&mutex_);
  if (waiters_ >= options_.max_waiters) {
    return absl::ResourceExhaustedError(absl::StrCat(waiters_, " calls wait for keys already"));
  }
  ++waiters_;
  auto found = values_.find(key);
  while (found == values_.end() && !closed_) {
    const absl::Duration left = deadline - MonotonicNow();
    if (left <= absl::ZeroDuration()) break;
    changed_.WaitFor(&mutex_, left);
    found = values_.find(key);
  }
  --waiters_;
  if (found != values_.end()) return found->second;
  if (closed_) return absl::CancelledError("the store is closed");
  return absl::DeadlineExceededError(absl::StrCat("nobody has set ", key, " within ", absl::FormatDuration(timeout)));
}

absl::StatusOr<int64_t> MemoryKvStore::Add(const std::string& key, int64_t amount) {
  MutexLock lock(&mutex_);
  int64_t value = 0;
  const auto found = values_.find(key);
  if (found != values_.end() && !absl::SimpleAtoi(found->second, &value)) {
    return absl::FailedPreconditionError(absl::StrCat(key, " holds something that is not a counter"));
  }
  if (__builtin_add_overflow(value, amount, &value)) {
    return absl::OutOfRangeError(absl::StrCat("counter ", key, " would overflow"));
  }
  SLUICE_RETURN_IF_ERROR(SetLocked(key, absl::StrCat(value)));
  return value;
}

void MemoryKvStore::ForgetPrefix(const std::string& prefix) {
  MutexLock lock(&mutex_);
  auto it = values_.lower_bound(prefix);
  while (it != values_.end() && absl::StartsWith(it->first, prefix)) {
    bytes_ -= it->first.size() + it->second.size();
    it = values_.erase(it);
  }
}

void MemoryKvStore::Close() {
  MutexLock lock(&mutex_);
  closed_ = true;
  changed_.NotifyAll();
}

size_t MemoryKvStore::size() const {
  MutexLock lock(&mutex_);
  return values_.size();
}

}  // namespace sluice
