#include "common/file/file.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/status/exit_code.h"
#include "common/status/status.h"

namespace sluice {

std::string RelativeTo(const std::string& path) {
  if (path.empty() || path.front() == '/') return "";
  std::error_code error;
  const std::string here = std::filesystem::current_path(error).string();
  return error ? "" : absl::StrCat("; a relative path starts at '", here, "'");
}

namespace {

constexpr size_t kBufferBytes = size_t{1} << 20;

absl::Status ErrnoStatus(int error, absl::string_view doing, const std::string& path) {
  const std::string message = absl::StrCat("cannot ", doing, " '", path, "': ", std::strerror(error));
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(absl::StrCat(message, RelativeTo(path)));
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(message);
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return NoSpaceError(absl::StrCat(message, "; free space there or choose another folder"));
    default:
      return absl::InternalError(message);
  }
}

absl::Status WriteAll(int descriptor, absl::string_view bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor, bytes.data(), bytes.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      return ErrnoStatus(errno, "write", path);
    }
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

std::string ParentOf(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

// Calls `use` with consecutive pieces of the file.
absl::Status ForEachPiece(const std::string& path, const std::function<void(absl::string_view)>& use) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return ErrnoStatus(errno, "open", path);
  const absl::Cleanup close = [descriptor] { ::close(descriptor); };
  std::string buffer(kBufferBytes, '\0');
  while (true) {
    const ssize_t got = ::read(descriptor, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, "read", path);
    if (got == 0) return absl::OkStatus();
    use(absl::string_view(buffer.data(), static_cast<size_t>(got)));
  }
}

}  // namespace

absl::StatusOr<std::string> ReadFile(const std::string& path, int64_t max_bytes) {
  SLUICE_ASSIGN_OR_RETURN(const int64_t size, FileBytes(path));
  if (size > max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", path, "' has ", size, " bytes, more than the limit of ", max_bytes));
  }
  std::string content;
  content.reserve(static_cast<size_t>(size));
  SLUICE_RETURN_IF_ERROR(ForEachPiece(path, [&content, max_bytes](absl::string_view piece) {
    if (static_cast<int64_t>(content.size()) <= max_bytes) content.append(piece.data(), piece.size());
  }));
  if (static_cast<int64_t>(content.size()) > max_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("'", path, "' grew past the limit of ", max_bytes, " bytes"));
  }
  return content;
}

absl::Status WriteFileAtomically(const std::string& path, absl::string_view bytes) {
  return WriteFileAtomically(path, [bytes](const FileSink& sink) { return sink(bytes); });
}

absl::Status WriteFileAtomically(const std::string& path, const std::function<absl::Status(const FileSink&)>& write) {
  const std::string temporary = path + ".tmp";
  const int descriptor = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor < 0) return ErrnoStatus(errno, "create", temporary);
  absl::Cleanup remove = [&temporary] { ::unlink(temporary.c_str()); };
  absl::Status status =
      write([descriptor, &temporary](absl::string_view bytes) { return WriteAll(descriptor, bytes, temporary); });
  if (status.ok() && ::fsync(descriptor) != 0) status = ErrnoStatus(errno, "fsync", temporary);
  if (::close(descriptor) != 0 && status.ok()) status = ErrnoStatus(errno, "close", temporary);
  SLUICE_RETURN_IF_ERROR(status);
  SLUICE_RETURN_IF_ERROR(RenamePath(temporary, path));
  std::move(remove).Cancel();
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<AppendFile>> AppendFile::Open(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (descriptor < 0) return ErrnoStatus(errno, "open", path);
  return std::unique_ptr<AppendFile>(new AppendFile(path, descriptor));
}

absl::StatusOr<std::unique_ptr<FileLock>> FileLock::Acquire(const std::string& path, absl::string_view what) {
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor < 0) return ErrnoStatus(errno, "open", path);
  std::unique_ptr<FileLock> lock(new FileLock(descriptor));
  if (::flock(descriptor, LOCK_EX | LOCK_NB) == 0) return lock;
  if (errno != EWOULDBLOCK) return ErrnoStatus(errno, "lock", path);
  return absl::UnavailableError(absl::StrCat(what, " is in use by another process, which holds '", path, "'"));
}

absl::StatusOr<std::unique_ptr<InputFile>> InputFile::Open(const std::string& path) {
  SLUICE_ASSIGN_OR_RETURN(const int64_t bytes, FileBytes(path));
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return ErrnoStatus(errno, "open", path);
  return std::unique_ptr<InputFile>(new InputFile(path, descriptor, bytes));
}

InputFile::~InputFile() { ::close(descriptor_); }

absl::Status InputFile::ReadAt(int64_t offset, char* into, size_t bytes) const {
  while (bytes > 0) {
    const ssize_t got = ::pread(descriptor_, into, bytes, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, "read", path_);
    if (got == 0) return absl::DataLossError(absl::StrCat("'", path_, "' became shorter while it was read"));
    into += got;
    offset += got;
    bytes -= static_cast<size_t>(got);
  }
  return absl::OkStatus();
}

FileLock::~FileLock() { ::close(descriptor_); }

AppendFile::~AppendFile() { ::close(descriptor_); }

absl::Status AppendFile::Append(absl::string_view line) {
  return WriteAll(descriptor_, absl::StrCat(line, "\n"), path_);
}

absl::Status AppendFile::Sync() {
  return ::fsync(descriptor_) == 0 ? absl::OkStatus() : ErrnoStatus(errno, "fsync", path_);
}

bool PathExists(const std::string& path) {
  struct stat info;
  return ::stat(path.c_str(), &info) == 0;
}

bool IsDirectory(const std::string& path) {
  struct stat info;
  return ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

absl::StatusOr<int64_t> FileBytes(const std::string& path) {
  struct stat info;
  if (::stat(path.c_str(), &info) != 0) return ErrnoStatus(errno, "read", path);
  if (S_ISDIR(info.st_mode)) return absl::InvalidArgumentError(absl::StrCat("'", path, "' is a folder, want a file"));
  return static_cast<int64_t>(info.st_size);
}

absl::Status MakeDirectories(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error && PathExists(path) && !IsDirectory(path)) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", path, "' is a file, want a folder; choose another path, or move the file away"));
  }
  return error ? ErrnoStatus(error.value(), "create folder", path) : absl::OkStatus();
}

absl::Status RemoveAll(const std::string& path) {
  // Another process may be removing the same folder, or still be writing into it.
  constexpr int kTries = 100;
  std::error_code error;
  for (int i = 0; i < kTries; ++i) {
    std::filesystem::remove_all(path, error);
    if (error != std::errc::no_such_file_or_directory && error != std::errc::directory_not_empty) break;
  }
  return error ? ErrnoStatus(error.value(), "remove", path) : absl::OkStatus();
}

absl::Status SyncDirectory(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return ErrnoStatus(errno, "open folder", path);
  const int result = ::fsync(descriptor);
  const int error = errno;
  ::close(descriptor);
  return result == 0 ? absl::OkStatus() : ErrnoStatus(error, "fsync folder", path);
}

absl::Status RenamePath(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) {
    return ErrnoStatus(errno, absl::StrCat("rename '", from, "' to"), to);
  }
  return SyncDirectory(ParentOf(to));
}

absl::Status ReplaceFolder(const std::string& from, const std::string& to) {
  if (!PathExists(to)) return RenamePath(from, to);
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) != 0) {
    const int error = errno;
    if (error != EINVAL && error != ENOSYS && error != EOPNOTSUPP) {
      return ErrnoStatus(error, absl::StrCat("exchange '", from, "' with"), to);
    }
    if (!PathExists(from)) return ErrnoStatus(ENOENT, absl::StrCat("rename '", from, "' to"), to);
    SLUICE_RETURN_IF_ERROR(RemoveAll(to));
    return RenamePath(from, to);
  }
  SLUICE_RETURN_IF_ERROR(SyncDirectory(ParentOf(to)));
  return RemoveAll(from);
}

absl::StatusOr<std::vector<std::string>> ListDirectory(const std::string& path) {
  std::error_code error;
  std::vector<std::string> names;
  for (auto it = std::filesystem::directory_iterator(path, error);
       !error && it != std::filesystem::directory_iterator(); it.increment(error)) {
    names.push_back(it->path().filename().string());
  }
  if (error) return ErrnoStatus(error.value(), "list folder", path);
  std::sort(names.begin(), names.end());
  return names;
}

std::string JoinPath(absl::string_view folder, absl::string_view name) {
  return (std::filesystem::path(std::string(folder)) / std::string(name)).string();
}

Sha256Stream::Sha256Stream() : context_(EVP_MD_CTX_new()) { EVP_DigestInit_ex(context_, EVP_sha256(), nullptr); }

Sha256Stream::~Sha256Stream() { EVP_MD_CTX_free(context_); }

void Sha256Stream::Update(absl::string_view bytes) { EVP_DigestUpdate(context_, bytes.data(), bytes.size()); }

std::string Sha256Stream::Digest() const {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  // Of a copy: the end of a digest ends its context.
  EVP_MD_CTX* copy = EVP_MD_CTX_new();
  EVP_MD_CTX_copy_ex(copy, context_);
  EVP_DigestFinal_ex(copy, digest, &size);
  EVP_MD_CTX_free(copy);
  return absl::BytesToHexString(absl::string_view(reinterpret_cast<char*>(digest), size));
}

std::string Sha256(absl::string_view bytes) {
  Sha256Stream hasher;
  hasher.Update(bytes);
  return hasher.Digest();
}

absl::Status HashPrefix(const std::string& path, uint64_t bytes, Sha256Stream* hasher) {
  uint64_t left = bytes;
  SLUICE_RETURN_IF_ERROR(ForEachPiece(path, [&](absl::string_view piece) {
    piece = piece.substr(0, static_cast<size_t>(std::min<uint64_t>(left, piece.size())));
    left -= piece.size();
    hasher->Update(piece);
  }));
  if (left == 0) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("'", path, "' has ", bytes - left, " bytes, want at least ", bytes));
}

absl::StatusOr<std::string> FileSha256(const std::string& path) {
  Sha256Stream hasher;
  SLUICE_RETURN_IF_ERROR(ForEachPiece(path, [&hasher](absl::string_view piece) { hasher.Update(piece); }));
  return hasher.Digest();
}

}  // namespace sluice
