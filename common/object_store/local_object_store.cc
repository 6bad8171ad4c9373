#include "common/object_store/local_object_store.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/file/file.h"
#include "common/status/status.h"

namespace sluice {
namespace {

constexpr size_t kPieceBytes = size_t{1} << 20;

std::string ParentOf(const std::string& path) { return std::filesystem::path(path).parent_path().string(); }

// The real place of a path whose end need not exist.
absl::StatusOr<std::filesystem::path> RealPath(const std::string& path) {
  std::error_code error;
  std::filesystem::path real = std::filesystem::weakly_canonical(std::filesystem::absolute(path, error), error);
  if (error) return absl::InternalError(absl::StrCat("cannot resolve '", path, "': ", error.message()));
  return real;
}

bool IsBelow(const std::filesystem::path& path, const std::filesystem::path& root) {
  return std::mismatch(root.begin(), root.end(), path.begin(), path.end()).first == root.end();
}

absl::Status Differs(const std::string& path, absl::string_view how) {
  return absl::DataLossError(absl::StrCat("'", path, "' has ", how, " than it should"));
}

}  // namespace

LocalObjectStore::LocalObjectStore(std::string root, std::function<bool()> stopped)
    : root_(std::move(root)), stopped_(std::move(stopped)) {}

absl::StatusOr<std::string> LocalObjectStore::PathOf(const std::string& key) const {
  SLUICE_RETURN_IF_ERROR(CheckKey(key));
  const std::string path = JoinPath(root_, key);
  SLUICE_ASSIGN_OR_RETURN(const std::filesystem::path root, RealPath(root_));
  SLUICE_ASSIGN_OR_RETURN(const std::filesystem::path real, RealPath(path));
  if (!IsBelow(real, root)) {
    return absl::PermissionDeniedError(absl::StrCat("'", path, "' leads out of '", root_, "' by a symbolic link"));
  }
  return path;
}

absl::Status LocalObjectStore::MakeParents(const std::string& path) const {
  const std::string parent = ParentOf(path);
  if (IsDirectory(parent)) return absl::OkStatus();
  SLUICE_RETURN_IF_ERROR(MakeDirectories(parent));
  // Every new name must survive a power cut, or the object would be gone with its folder.
  for (std::string folder = parent; folder.size() > root_.size(); folder = ParentOf(folder)) {
    SLUICE_RETURN_IF_ERROR(SyncDirectory(ParentOf(folder)));
  }
  return absl::OkStatus();
}

absl::Status LocalObjectStore::Copy(const std::string& from, const std::string& to, int64_t max_bytes,
                                    const ExpectedContent& expected) const {
  SLUICE_ASSIGN_OR_RETURN(const std::unique_ptr<InputFile> file, InputFile::Open(from));
  if (file->bytes() > max_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("'", from, "' has more than ", max_bytes, " bytes"));
  }
  if (expected.bytes.value_or(file->bytes()) != file->bytes()) return Differs(from, "another length");
  return WriteFileAtomically(to, [&](const FileSink& write) -> absl::Status {
    Sha256Stream digest;
    std::string buffer(kPieceBytes, '\0');
    for (int64_t offset = 0; offset < file->bytes();) {
      if (stopped_ && stopped_()) return absl::CancelledError(absl::StrCat("stopped while copying '", from, "'"));
      const size_t bytes = static_cast<size_t>(std::min<int64_t>(kPieceBytes, file->bytes() - offset));
      SLUICE_RETURN_IF_ERROR(file->ReadAt(offset, buffer.data(), bytes));
      digest.Update({buffer.data(), bytes});
      SLUICE_RETURN_IF_ERROR(write({buffer.data(), bytes}));
      offset += static_cast<int64_t>(bytes);
    }
    if (!expected.sha256.empty() && digest.Digest() != expected.sha256) return Differs(from, "another SHA-256");
    return absl::OkStatus();
  });
}

absl::Status LocalObjectStore::Put(const std::string& key, absl::string_view bytes) {
  SLUICE_ASSIGN_OR_RETURN(const std::string path, PathOf(key));
  SLUICE_RETURN_IF_ERROR(MakeParents(path));
  return WriteFileAtomically(path, bytes);
}

absl::Status LocalObjectStore::PutFile(const std::string& key, const std::string& path,
                                       const ExpectedContent& expected) {
  SLUICE_ASSIGN_OR_RETURN(const std::string target, PathOf(key));
  SLUICE_RETURN_IF_ERROR(MakeParents(target));
  return Copy(path, target, std::numeric_limits<int64_t>::max(), expected);
}

absl::StatusOr<std::string> LocalObjectStore::Get(const std::string& key, int64_t max_bytes) {
  SLUICE_ASSIGN_OR_RETURN(const std::string path, PathOf(key));
  return ReadFile(path, max_bytes);
}

absl::Status LocalObjectStore::GetToFile(const std::string& key, const std::string& path, int64_t max_bytes,
                                         const ExpectedContent& expected) {
  SLUICE_ASSIGN_OR_RETURN(const std::string source, PathOf(key));
  return Copy(source, path, max_bytes, expected);
}

absl::StatusOr<std::vector<ObjectInfo>> LocalObjectStore::List(const std::string& prefix, int64_t max_objects) {
  SLUICE_RETURN_IF_ERROR(CheckPrefix(prefix));
  std::vector<ObjectInfo> objects;
  if (!IsDirectory(root_)) return objects;
  std::error_code error;
  for (auto it = std::filesystem::recursive_directory_iterator(root_, error);
       !error && it != std::filesystem::recursive_directory_iterator(); it.increment(error)) {
    std::error_code gone;
    const std::string key = it->path().lexically_relative(root_).string();
    if (it->is_symlink(gone) || !it->is_regular_file(gone)) continue;
    if (!absl::StartsWith(key, prefix) || !CheckKey(key).ok()) continue;
    const auto bytes = it->file_size(gone);
    if (gone) continue;  // removed while we looked
    objects.push_back({key, static_cast<int64_t>(bytes)});
    if (static_cast<int64_t>(objects.size()) > max_objects) {
      return absl::ResourceExhaustedError(
          absl::StrCat("there are more than ", max_objects, " objects in '", JoinPath(root_, prefix), "'"));
    }
  }
  if (error) return absl::UnavailableError(absl::StrCat("cannot list '", root_, "': ", error.message()));
  std::sort(objects.begin(), objects.end(), [](const ObjectInfo& a, const ObjectInfo& b) { return a.key < b.key; });
  return objects;
}

absl::StatusOr<ObjectInfo> LocalObjectStore::Head(const std::string& key) {
  SLUICE_ASSIGN_OR_RETURN(const std::string path, PathOf(key));
  if (IsDirectory(path)) return absl::NotFoundError(absl::StrCat("'", path, "' is a folder, no object"));
  SLUICE_ASSIGN_OR_RETURN(const int64_t bytes, FileBytes(path));
  return ObjectInfo{key, bytes};
}

absl::Status LocalObjectStore::Delete(const std::string& key) {
  SLUICE_ASSIGN_OR_RETURN(std::string path, PathOf(key));
  std::error_code error;
  if (IsDirectory(path)) return absl::OkStatus();  // no object has this key
  if (!std::filesystem::remove(path, error) && !error) return absl::OkStatus();
  if (error) return absl::PermissionDeniedError(absl::StrCat("cannot remove '", path, "': ", error.message()));
  SLUICE_RETURN_IF_ERROR(SyncDirectory(ParentOf(path)));
  // rmdir fails on the first folder that is not empty.
  for (path = ParentOf(path); path.size() > root_.size() && ::rmdir(path.c_str()) == 0;) path = ParentOf(path);
  return absl::OkStatus();
}

}  // namespace sluice
