// Bounded reads, atomic writes and digests. Every error names the path and, where one helps, the remedy.
//
// Codes: NotFound (no such file), InvalidArgument (larger than the caller's limit), DataLoss (shorter than
// promised), NoSpaceError (disk full, quota, file-size limit; exit code 14), PermissionDenied, Internal.
// Thread-safe as the file system is.
#ifndef SLUICE_COMMON_FILE_FILE_H_
#define SLUICE_COMMON_FILE_FILE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

// OpenSSL's, from <openssl/evp.h>.
using EVP_MD_CTX = struct evp_md_ctx_st;  // NOLINT(readability-identifier-naming)

namespace sluice {

// For a message about a path that is not there: "; a relative path starts at '/here'", or nothing for an absolute path.
std::string RelativeTo(const std::string& path);

inline constexpr int64_t kMaxTextFileBytes = int64_t{1} << 30;

// The whole file, refused if larger than `max_bytes`.
absl::StatusOr<std::string> ReadFile(const std::string& path, int64_t max_bytes = kMaxTextFileBytes);

// Writes `path` + ".tmp", fsyncs, renames over `path`, fsyncs the folder: readers see the old bytes or the
// new ones, also after a power cut. The temporary file is removed on failure.
absl::Status WriteFileAtomically(const std::string& path, absl::string_view bytes);

// As above for content too large for one string: `write` gets a sink that appends and may be called any
// number of times; its first error is returned and nothing is left behind.
using FileSink = std::function<absl::Status(absl::string_view)>;
absl::Status WriteFileAtomically(const std::string& path, const std::function<absl::Status(const FileSink&)>& write);

// Appends whole lines, each with one write(2), so that lines of a killed process are whole or absent.
// Not thread-safe.
class AppendFile {
 public:
  static absl::StatusOr<std::unique_ptr<AppendFile>> Open(const std::string& path);
  ~AppendFile();
  absl::Status Append(absl::string_view line);  // a '\n' is added
  absl::Status Sync();

 private:
  AppendFile(std::string path, int descriptor) : path_(std::move(path)), descriptor_(descriptor) {}
  std::string path_;
  int descriptor_;
};

// Reads a file at any place. Thread-safe.
class InputFile {
 public:
  static absl::StatusOr<std::unique_ptr<InputFile>> Open(const std::string& path);
  ~InputFile();
  const std::string& path() const { return path_; }
  int64_t bytes() const { return bytes_; }  // when it was opened
  // Fills `into`. DataLoss if the file ends before.
  absl::Status ReadAt(int64_t offset, char* into, size_t bytes) const;

 private:
  InputFile(std::string path, int descriptor, int64_t bytes)
      : path_(std::move(path)), descriptor_(descriptor), bytes_(bytes) {}
  const std::string path_;
  const int descriptor_;
  const int64_t bytes_;
};

// Held by one process at a time, until it is destroyed or its process ends, however it ends. The file stays.
class FileLock {
 public:
  // Unavailable if another holder has it, in words that begin with `what`.
  static absl::StatusOr<std::unique_ptr<FileLock>> Acquire(const std::string& path, absl::string_view what);
  ~FileLock();

 private:
  explicit FileLock(int descriptor) : descriptor_(descriptor) {}
  int descriptor_;
};

bool PathExists(const std::string& path);
bool IsDirectory(const std::string& path);
absl::StatusOr<int64_t> FileBytes(const std::string& path);
absl::Status MakeDirectories(const std::string& path);  // InvalidArgument: a file is there
// With all that is in it; nothing there is no error. Several may remove the same folder at once.
absl::Status RemoveAll(const std::string& path);
absl::Status SyncDirectory(const std::string& path);
// Renames and fsyncs the parent folder. Both on one file system.
absl::Status RenamePath(const std::string& from, const std::string& to);
// The same for folders; if there is a `to`, the two change places in one operation, so that a kill leaves the old one
// or the new one, and what was `to` is then removed. (Removed first on a file system that cannot exchange.) Without a
// `from` nothing happens to `to`.
absl::Status ReplaceFolder(const std::string& from, const std::string& to);
// Names (not paths) in a folder, sorted.
absl::StatusOr<std::vector<std::string>> ListDirectory(const std::string& path);
// "a" and "b" -> "a/b". An absolute `name` is returned as it is.
std::string JoinPath(absl::string_view folder, absl::string_view name);

// SHA-256 in lower-case hexadecimal: what sha256sum prints, so that anyone can check a manifest.
std::string Sha256(absl::string_view bytes);
// The same of bytes that come piece by piece. Not thread-safe.
class Sha256Stream {
 public:
  Sha256Stream();
  ~Sha256Stream();
  Sha256Stream(const Sha256Stream&) = delete;
  Sha256Stream& operator=(const Sha256Stream&) = delete;
  void Update(absl::string_view bytes);
  // Of what came so far; more may come.
  std::string Digest() const;

 private:
  EVP_MD_CTX* context_;
};
absl::StatusOr<std::string> FileSha256(const std::string& path);
// Feeds the file's first `bytes` bytes to `hasher`. DataLoss if it is shorter.
absl::Status HashPrefix(const std::string& path, uint64_t bytes, Sha256Stream* hasher);

}  // namespace sluice

#endif  // SLUICE_COMMON_FILE_FILE_H_
