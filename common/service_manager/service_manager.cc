#include "common/service_manager/service_manager.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log/log.h"
#include "common/log/one_line.h"

namespace sluice {
namespace {

constexpr char kVariable[] = "NOTIFY_SOCKET";
// Of one line: the manager would take another for a variable.
constexpr size_t kMaxStatusBytes = 200;
constexpr time_t kSendTimeoutSeconds = 1;

absl::Status SystemError(absl::string_view what) {
  const int error = errno;
  return absl::UnavailableError(absl::StrCat(what, ": ", std::strerror(error)));
}

}  // namespace

std::string TakeNotifySocket() {
  const char* const value = std::getenv(kVariable);
  std::string address = value == nullptr ? "" : value;
  unsetenv(kVariable);
  return address;
}

absl::Status SendToSocket(const std::string& address, absl::string_view message) {
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  if (address.size() < 2 || (address[0] != '/' && address[0] != '@') || address.size() >= sizeof(name.sun_path)) {
    return absl::InvalidArgumentError(
        absl::StrCat("want /path or @name of at most ", sizeof(name.sun_path) - 1, " bytes, got '", address, "'"));
  }
  std::memcpy(name.sun_path, address.data(), address.size());
  if (address[0] == '@') name.sun_path[0] = '\0';
  // An abstract name ends where the address does, not at a zero.
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address.size() + (address[0] == '/'));

  const int descriptor = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (descriptor < 0) return SystemError("no socket");
  const timeval limit = {kSendTimeoutSeconds, 0};
  ::setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
  const ssize_t sent = ::sendto(descriptor, message.data(), message.size(), MSG_NOSIGNAL,
                                reinterpret_cast<const sockaddr*>(&name), size);
  absl::Status status = sent < 0 ? SystemError("not sent") : absl::OkStatus();
  ::close(descriptor);
  return status;
}

ServiceManager::ServiceManager(std::string address, Send send) : address_(std::move(address)), send_(std::move(send)) {}

void ServiceManager::Ready(absl::string_view status) {
  MutexLock lock(&mutex_);
  Tell(std::exchange(ready_, true) ? "" : "READY=1\n", OneLine(status, kMaxStatusBytes));
}

void ServiceManager::SetStatus(absl::string_view status) {
  MutexLock lock(&mutex_);
  Tell("", OneLine(status, kMaxStatusBytes));
}

void ServiceManager::Stopping(absl::string_view status, absl::Duration within) {
  MutexLock lock(&mutex_);
  if (stopping_) return;
  std::string lines = "STOPPING=1\n";
  if (within > absl::ZeroDuration()) {
    absl::StrAppend(&lines, "EXTEND_TIMEOUT_USEC=", absl::ToInt64Microseconds(within), "\n");
  }
  Tell(std::move(lines), OneLine(status, kMaxStatusBytes));
  stopping_ = true;
}

void ServiceManager::Tell(std::string lines, const std::string& status) {
  if (address_.empty() || stopping_ || (lines.empty() && status == said_)) return;
  said_ = status;
  absl::StrAppend(&lines, "STATUS=", status, "\n");
  const absl::Status sent = send_(address_, lines);
  if (!sent.ok() && !std::exchange(failed_, true)) {
    LogWarning("the service manager is not told how this process is",
               {{"NOTIFY_SOCKET", address_}, {"error", sent.message()}});
  }
}

}  // namespace sluice
