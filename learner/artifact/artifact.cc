#include "learner/artifact/artifact.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/file/file.h"
#include "common/status/status.h"
#include "learner/artifact/relative_path.h"

namespace sluice::learner {
namespace {

namespace fs = std::filesystem;

struct FileFacts {
  uint64_t bytes = 0;
  absl::Time modified;
  std::string identity;
};

absl::StatusOr<FileFacts> FactsOf(const std::string& path) {
  struct stat facts = {};
  if (lstat(path.c_str(), &facts) != 0 || !S_ISREG(facts.st_mode)) {
    return absl::NotFoundError(absl::StrCat("there is no file '", path, "'"));
  }
  const absl::Time modified = absl::TimeFromTimespec(facts.st_mtim);
  return FileFacts{static_cast<uint64_t>(facts.st_size), modified,
                   absl::StrCat(facts.st_ino, "-", facts.st_size, "-", absl::ToUnixNanos(modified))};
}

bool IsPassing(const std::string& path) {
  return absl::EndsWith(path, ".tmp") || absl::StrContains(path, ".tmp/") || path == "lock";
}

}  // namespace

absl::StatusOr<ArtifactList> ListArtifacts(const std::string& folder, size_t limit) {
  if (!IsDirectory(folder)) return absl::NotFoundError(absl::StrCat("there is no folder '", folder, "' yet"));
  ArtifactList list;
  std::error_code error;
  // Files come and go while a job runs: what vanished is not there.
  for (auto it = fs::recursive_directory_iterator(folder, fs::directory_options::skip_permission_denied, error);
       !error && it != fs::recursive_directory_iterator(); it.increment(error)) {
    const std::string path = it->path().lexically_relative(folder).string();
    if (IsPassing(path)) continue;
    const absl::StatusOr<FileFacts> facts = FactsOf(it->path().string());
    if (facts.ok()) list.files.push_back({path, facts->bytes, facts->modified});
  }
  if (error && error != std::errc::no_such_file_or_directory) {
    return absl::InternalError(absl::StrCat("cannot list '", folder, "': ", error.message()));
  }
  std::sort(list.files.begin(), list.files.end(),
            [](const ArtifactFile& a, const ArtifactFile& b) { return a.path < b.path; });
  list.truncated = list.files.size() > limit;
  if (list.truncated) list.files.resize(limit);
  return list;
}

absl::StatusOr<ArtifactPiece> ReadArtifact(const std::string& folder, const std::string& path,
                                           const ArtifactRange& range) {
  SLUICE_RETURN_IF_ERROR(CheckRelativePath(path));
  const std::string whole = JoinPath(folder, path);
  SLUICE_ASSIGN_OR_RETURN(const FileFacts facts, FactsOf(whole));
  // A link among the folders of the path may lead anywhere.
  std::error_code error;
  const fs::path top = fs::canonical(folder, error);
  const fs::path real = error ? fs::path() : fs::canonical(whole, error);
  if (error || real != (top / path).lexically_normal()) {
    return absl::InvalidArgumentError(absl::StrCat("path: '", path, "' leads through a link, which is not followed"));
  }
  if (!range.identity.empty() && range.identity != facts.identity) {
    return absl::FailedPreconditionError(
        absl::StrCat("'", path, "' has changed since its download began; begin again"));
  }
  if (range.offset > facts.bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("offset: '", path, "' has ", facts.bytes, " bytes, got ", range.offset));
  }
  ArtifactPiece piece;
  piece.total_bytes = facts.bytes;
  piece.identity = facts.identity;
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<InputFile> file, InputFile::Open(whole));
  piece.data.resize(std::min<uint64_t>(range.max_bytes, facts.bytes - range.offset));
  SLUICE_RETURN_IF_ERROR(file->ReadAt(static_cast<int64_t>(range.offset), piece.data.data(), piece.data.size()));
  const bool last = range.offset + piece.data.size() == facts.bytes;
  if (last && range.digest) {
    Sha256Stream hasher;
    SLUICE_RETURN_IF_ERROR(HashPrefix(whole, facts.bytes, &hasher));
    piece.sha256 = hasher.Digest();
  }
  return piece;
}

}  // namespace sluice::learner
