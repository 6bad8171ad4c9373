// A KvStore in this process's memory: what the coordinator serves, and what tests with ranks as threads meet
// through. Bounded: refuses more than `max_keys` keys (ResourceExhausted). Thread-safe.
#ifndef SLUICE_COMMON_SYNC_MEMORY_KV_STORE_H_
#define SLUICE_COMMON_SYNC_MEMORY_KV_STORE_H_

#include <cstddef>
#include <map>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/sync/kv_store.h"
#include "common/sync/mutex.h"

namespace sluice {

class MemoryKvStore : public KvStore {
 public:
  explicit MemoryKvStore(size_t max_keys = 65536) : max_keys_(max_keys) {}

  absl::Status Set(const std::string& key, const std::string& value) override {
    MutexLock lock(&mutex_);
    if (absl::Status room = RoomForLocked(key); !room.ok()) return room;
    values_[key] = value;
    changed_.NotifyAll();
    return absl::OkStatus();
  }

  absl::StatusOr<std::string> Get(const std::string& key, absl::Duration timeout) override {
    const absl::Time deadline = absl::Now() + timeout;
    MutexLock lock(&mutex_);
    while (true) {
      const auto found = values_.find(key);
      if (found != values_.end()) return found->second;
      const absl::Duration left = deadline - absl::Now();
      if (left <= absl::ZeroDuration()) {
        return absl::DeadlineExceededError(
            absl::StrCat("key '", key, "' was not set within ", absl::FormatDuration(timeout)));
      }
      changed_.WaitFor(&mutex_, left);
    }
  }

  absl::StatusOr<int64_t> Add(const std::string& key, int64_t amount) override {
    MutexLock lock(&mutex_);
    if (absl::Status room = RoomForLocked(key); !room.ok()) return room;
    std::string& text = values_[key];
    int64_t value = 0;
    if (!text.empty() && !absl::SimpleAtoi(text, &value)) {
      return absl::FailedPreconditionError(absl::StrCat("key '", key, "' holds no counter"));
    }
    value += amount;
    text = absl::StrCat(value);
    changed_.NotifyAll();
    return value;
  }

  // Forgets every key that starts with `prefix`: of an epoch that is over.
  void EraseWithPrefix(const std::string& prefix) {
    MutexLock lock(&mutex_);
    auto first = values_.lower_bound(prefix);
    while (first != values_.end() && first->first.compare(0, prefix.size(), prefix) == 0) first = values_.erase(first);
  }

 private:
  absl::Status RoomForLocked(const std::string& key) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (values_.size() < max_keys_ || values_.count(key) > 0) return absl::OkStatus();
    return absl::ResourceExhaustedError(
        absl::StrCat("the key-value store is full with ", max_keys_, " keys; key '", key, "' was not stored"));
  }

  const size_t max_keys_;
  Mutex mutex_;
  CondVar changed_;
  std::map<std::string, std::string> values_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace sluice

#endif  // SLUICE_COMMON_SYNC_MEMORY_KV_STORE_H_
