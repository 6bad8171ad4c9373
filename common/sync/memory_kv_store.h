// A KvStore in this process: the rendezvous store that the coordinator serves, and what tests with ranks as threads
// meet through. Bounded in keys, bytes and waiters.
#ifndef SLUICE_COMMON_SYNC_MEMORY_KV_STORE_H_
#define SLUICE_COMMON_SYNC_MEMORY_KV_STORE_H_

#include <cstdint>
#include <map>
#include <string>

#include "common/sync/kv_store.h"
#include "common/sync/mutex.h"

namespace sluice {

struct MemoryKvStoreOptions {
  size_t max_keys = 100000;
  size_t max_bytes = 256 << 20;  // keys and values together
  size_t max_value_bytes = 1 << 20;
  int max_waiters = 512;  // Get calls that wait at the same time
};

// Thread-safe. ResourceExhausted beyond a bound; InvalidArgument for an empty key or a value that is too large.
class MemoryKvStore : public KvStore {
 public:
  explicit MemoryKvStore(MemoryKvStoreOptions options = {}) : options_(options) {}

  absl::Status Set(const std::string& key, const std::string& value) override;
  // Cancelled after Close.
  absl::StatusOr<std::string> Get(const std::string& key, absl::Duration timeout) override;
  // FailedPrecondition if the key holds something that Add did not write.
  absl::StatusOr<int64_t> Add(const std::string& key, int64_t amount) override;

  // Forgets every key that starts with `prefix`.
  void ForgetPrefix(const std::string& prefix);
  // Wakes every waiter; later waits return at once.
  void Close();

  size_t size() const;

 private:
  absl::Status SetLocked(const std::string& key, const std::string& value) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const MemoryKvStoreOptions options_;
  mutable Mutex mutex_;
  CondVar changed_;
  std::map<std::string, std::string> values_ ABSL_GUARDED_BY(mutex_);
  size_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  int waiters_ ABSL_GUARDED_BY(mutex_) = 0;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace sluice

#endif  // SLUICE_COMMON_SYNC_MEMORY_KV_STORE_H_
