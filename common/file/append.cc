#include "common/file/append.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "common/status/exit_code.h"

namespace sluice {
namespace {

absl::Status WriteError(const std::string& path) {
  const int error = errno;
  const std::string message = absl::StrCat("cannot write '", path, "': ", std::strerror(error));
  if (error == ENOSPC || error == EDQUOT || error == EFBIG) {
    return NoSpaceError(absl::StrCat(message, "; free space there or choose another folder"));
  }
  if (error == EACCES || error == EPERM || error == EROFS) return absl::PermissionDeniedError(message);
  return absl::InternalError(message);
}

}  // namespace

absl::Status AppendToFile(const std::string& path, absl::string_view bytes) {
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0644);
  if (file < 0) return WriteError(path);
  const auto closed = absl::MakeCleanup([file] { close(file); });
  while (!bytes.empty()) {
    const ssize_t written = write(file, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return WriteError(path);
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

absl::Status SyncFile(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (file < 0) return WriteError(path);
  const auto closed = absl::MakeCleanup([file] { close(file); });
  return fsync(file) == 0 ? absl::OkStatus() : WriteError(path);
}

}  // namespace sluice
