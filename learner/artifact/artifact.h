// The files of a run folder as clients read them: a list, and pieces of one file. Whatever path a client names, nothing
// outside the folder is read, also not through a link. Thread-safe as the file system is.
#ifndef SLUICE_LEARNER_ARTIFACT_ARTIFACT_H_
#define SLUICE_LEARNER_ARTIFACT_ARTIFACT_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace sluice::learner {

struct ArtifactFile {
  std::string path;  // relative to the folder
  uint64_t bytes = 0;
  absl::Time modified;
};

struct ArtifactList {
  std::vector<ArtifactFile> files;  // by path
  bool truncated = false;           // there are more than were asked for
};

// Regular files below `folder`; what is being written (.tmp) and locks are left out, links too. NotFound: no folder.
absl::StatusOr<ArtifactList> ListArtifacts(const std::string& folder, size_t limit);

struct ArtifactRange {
  uint64_t offset = 0;
  size_t max_bytes = 1 << 20;
  std::string identity;  // of an earlier piece; empty: whatever is there
  bool digest = false;   // with the last piece
};

struct ArtifactPiece {
  std::string data;
  uint64_t total_bytes = 0;
  std::string identity;  // changes when the file does
  std::string sha256;    // of the whole file, with the last piece if asked
};

// InvalidArgument: the path leads out of `folder`, or the offset beyond the file. NotFound. FailedPrecondition: the
// file is not the one of `identity` any more.
absl::StatusOr<ArtifactPiece> ReadArtifact(const std::string& folder, const std::string& path,
                                           const ArtifactRange& range);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_ARTIFACT_ARTIFACT_H_
