// A small shared key-value store: how the ranks of an epoch find each other. It lives in the coordinator, which is
// not a rank. Keys are never reused over epochs, so late writers of old epochs are harmless. Thread-safe.
#ifndef SLUICE_COMMON_SYNC_KV_STORE_H_
#define SLUICE_COMMON_SYNC_KV_STORE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace sluice {

class KvStore {
 public:
  virtual ~KvStore() = default;
  virtual absl::Status Set(const std::string& key, const std::string& value) = 0;
  // Waits up to `timeout` for the key to exist. DeadlineExceeded if it does not.
  virtual absl::StatusOr<std::string> Get(const std::string& key, absl::Duration timeout) = 0;
  // Adds to a counter that starts at 0, stored as decimal text; returns the new value.
  virtual absl::StatusOr<int64_t> Add(const std::string& key, int64_t amount) = 0;
};

}  // namespace sluice

#endif  // SLUICE_COMMON_SYNC_KV_STORE_H_
