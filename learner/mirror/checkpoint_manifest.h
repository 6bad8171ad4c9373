// What a checkpoint's manifest says of its files, both ways.
#ifndef SLUICE_LEARNER_MIRROR_CHECKPOINT_MANIFEST_H_
#define SLUICE_LEARNER_MIRROR_CHECKPOINT_MANIFEST_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/object_store/object_store.h"

namespace sluice::learner {

inline constexpr char kManifestFile[] = "manifest.json";

struct ManifestFile {
  std::string name;         // relative to the checkpoint's folder, and below it
  ExpectedContent content;  // both size and digest
};

// A manifest's "files": size and SHA-256 of every file in `folder` and below it.
absl::Status DescribeFiles(const std::string& folder, nlohmann::json* files);

// Without a look at the files. Any bytes may come: DataLoss, in words that name `what`, for all but a manifest with one
// file at least, each with its size of at most `max_file_bytes` and its SHA-256.
absl::StatusOr<std::vector<ManifestFile>> ParseCheckpointManifest(const std::string& text, const std::string& what,
                                                                  int64_t max_file_bytes);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_MIRROR_CHECKPOINT_MANIFEST_H_
