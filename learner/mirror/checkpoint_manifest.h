// What a checkpoint's manifest says of its files, without a look at them.
#ifndef SLUICE_LEARNER_MIRROR_CHECKPOINT_MANIFEST_H_
#define SLUICE_LEARNER_MIRROR_CHECKPOINT_MANIFEST_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/object_store/object_store.h"

namespace sluice::learner {

inline constexpr char kManifestFile[] = "manifest.json";

struct ManifestFile {
  std::string name;         // relative to the checkpoint's folder, and below it
  ExpectedContent content;  // both size and digest
};

// Any bytes may come: DataLoss, in words that name `what`, for all but a manifest with one file at least, each with its
// size of at most `max_file_bytes` and its SHA-256.
absl::StatusOr<std::vector<ManifestFile>> ParseCheckpointManifest(const std::string& text, const std::string& what,
                                                                  int64_t max_file_bytes);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_MIRROR_CHECKPOINT_MANIFEST_H_
