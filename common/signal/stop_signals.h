// SIGTERM and SIGINT, by which a process is asked to stop.
//
// In a program that links this they are blocked before anything of it runs, its libraries' constructors included, and
// so in every thread: one that comes early waits until it is taken. Otherwise it would end the process in the middle of
// its start with no exit code of ours; or, worse, be lost: process 1 of a namespace, as in a container, has no default
// action, and the kernel drops what is neither blocked nor handled.
#ifndef SLUICE_COMMON_SIGNAL_STOP_SIGNALS_H_
#define SLUICE_COMMON_SIGNAL_STOP_SIGNALS_H_

#include "absl/time/time.h"

namespace sluice {

// Takes one that waits or that comes within `time`, and returns its number; 0 if none did. For programs that look for
// them in one place. A call may return 0 early.
int TakeStopSignal(absl::Duration time = absl::ZeroDuration());

// For programs in which a handler notes them: sets `handler` for both and lets them in, on the calling thread and those
// that it will start. One that waited is handled before this returns. Calls that the kernel interrupts go on.
void HandleStopSignals(void (*handler)(int));

}  // namespace sluice

#endif  // SLUICE_COMMON_SIGNAL_STOP_SIGNALS_H_
