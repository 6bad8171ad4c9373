// A rendezvous store for one group after the other, each with an epoch of its own in its keys: what an earlier group
// left goes away, and its late writers change nothing.
#ifndef SLUICE_COMMON_SYNC_EPOCH_KV_STORE_H_
#define SLUICE_COMMON_SYNC_EPOCH_KV_STORE_H_

#include <cstdint>
#include <string>

#include "common/sync/kv_store.h"
#include "common/sync/memory_kv_store.h"
#include "common/sync/mutex.h"

namespace sluice {

// Thread-safe. Keys are "epoch/N/...": InvalidArgument for others, Aborted for those of an epoch that is over; else as
// MemoryKvStore. Keys of epochs that have not begun are taken: whoever comes first may be early.
class EpochKvStore : public KvStore {
 public:
  explicit EpochKvStore(MemoryKvStoreOptions options) : store_(options) {}

  // Epochs below this one are over: their keys are forgotten.
  void ForgetBefore(uint64_t epoch);

  absl::Status Set(const std::string& key, const std::string& value) override;
  absl::StatusOr<std::string> Get(const std::string& key, absl::Duration timeout) override;
  absl::StatusOr<int64_t> Add(const std::string& key, int64_t amount) override;

  // Wakes every waiter; later waits return at once with Cancelled.
  void Close() { store_.Close(); }

  size_t size() const { return store_.size(); }

 private:
  absl::Status Check(const std::string& key) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  MemoryKvStore store_;
  mutable Mutex mutex_;  // held over writes, so that none comes after its epoch was forgotten
  uint64_t first_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace sluice

#endif  // SLUICE_COMMON_SYNC_EPOCH_KV_STORE_H_
