// Tells systemd how a service is: when it serves, what it does, that it stops (units of Type=notify, sd_notify(3)).
//
// The protocol is one datagram of lines to a socket, so this sends it itself: linking libsystemd for that would bring a
// library that the images do not have, and that a process without systemd has no use for. Podman and others that speak
// the protocol are told as well.
//
// Whoever is not started by such a manager has no NOTIFY_SOCKET, and everything here does nothing. No error of the
// socket ever is the service's: the first is a warning in the log.
#ifndef SLUICE_COMMON_SERVICE_MANAGER_SERVICE_MANAGER_H_
#define SLUICE_COMMON_SERVICE_MANAGER_SERVICE_MANAGER_H_

#include <functional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/sync/mutex.h"

namespace sluice {

// The value of NOTIFY_SOCKET, "" without one. It leaves the environment, so that no child takes the message for its to
// send. To be called while the process has one thread.
std::string TakeNotifySocket();

// Sends one datagram to the socket "/path" or "@name" (of the abstract namespace). Waits a second at most while the
// receiver's queue is full. InvalidArgument: no such address; else what the system says.
absl::Status SendToSocket(const std::string& address, absl::string_view message);

// Thread-safe. A status is one line for people; of a longer one the first 200 bytes.
class ServiceManager {
 public:
  using Send = std::function<absl::Status(const std::string& address, absl::string_view message)>;

  // `address`: what TakeNotifySocket returned.
  explicit ServiceManager(std::string address, Send send = SendToSocket);

  // The service serves. Once: there is no way to be less than ready again, so later calls are SetStatus.
  void Ready(absl::string_view status);
  // What it does. Nothing is sent if that was said last, or once the service stops.
  void SetStatus(absl::string_view status);
  // It stops, and takes up to `within`, if that is said: longer than its unit's TimeoutStopSec is then allowed. Once.
  void Stopping(absl::string_view status, absl::Duration within = absl::ZeroDuration());

 private:
  void Tell(std::string lines, const std::string& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string address_;
  const Send send_;
  // Held while a message is sent, too: they have to arrive in the order of the calls.
  Mutex mutex_;
  bool ready_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool failed_ ABSL_GUARDED_BY(mutex_) = false;
  std::string said_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace sluice

#endif  // SLUICE_COMMON_SERVICE_MANAGER_SERVICE_MANAGER_H_
