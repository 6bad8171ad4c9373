#include "common/signal/stop_signals.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <ctime>

namespace sluice {
namespace {

// As the kernel counts them: signal n is bit n - 1.
constexpr uint64_t kMask = uint64_t{1} << (SIGTERM - 1) | uint64_t{1} << (SIGINT - 1);

sigset_t StopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  return signals;
}

// Nothing of a sanitizer is ready yet when this runs: no check in it, and the kernel's own call instead of
// pthread_sigmask, which a sanitizer puts its own in place of.
__attribute__((no_sanitize("address"), no_sanitize("thread"), no_sanitize("undefined"))) void BlockStopSignals() {
  syscall(SYS_rt_sigprocmask, SIG_BLOCK, &kMask, nullptr, sizeof(kMask));
}

// The loader calls these of a program before the constructors of any library.
__attribute__((section(".preinit_array"), used)) void (*block_stop_signals)() = BlockStopSignals;

}  // namespace

int TakeStopSignal(absl::Duration time) {
  const sigset_t signals = StopSignals();
  const timespec limit = absl::ToTimespec(time);
  return std::max(0, sigtimedwait(&signals, nullptr, &limit));
}

void HandleStopSignals(void (*handler)(int)) {
  struct sigaction action = {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
  const sigset_t signals = StopSignals();
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
}

}  // namespace sluice
