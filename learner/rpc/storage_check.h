// What the coordinator can say of the storage that its jobs write to.
#ifndef SLUICE_LEARNER_RPC_STORAGE_CHECK_H_
#define SLUICE_LEARNER_RPC_STORAGE_CHECK_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace sluice::learner {

struct StorageFacts {
  uint64_t free_bytes = 0;
  uint64_t total_bytes = 0;
  uint64_t shm_bytes = 0;  // size of /dev/shm; 0: there is none
};
StorageFacts LookAtStorage(const std::string& folder);

// Does in `folder` what a checkpoint needs: writes, fsyncs, renames over a file and exchanges two folders; reads it
// back and removes it. OK, or what does not work and what to do.
absl::Status TryStorage(const std::string& folder);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RPC_STORAGE_CHECK_H_
