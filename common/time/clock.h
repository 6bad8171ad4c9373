// Time as an argument: cores take a NowFunction and never read a clock themselves.
#ifndef SLUICE_COMMON_TIME_CLOCK_H_
#define SLUICE_COMMON_TIME_CLOCK_H_

#include <functional>

#include "absl/time/time.h"

namespace sluice {

// Returns the present. Must be callable from any thread.
using NowFunction = std::function<absl::Time()>;

// Wall-clock time, for timestamps that people read.
NowFunction WallClock();

// Wall-clock time at process start, advanced by the monotonic clock: for deadlines and leases, which must
// not move when somebody sets the clock.
absl::Time MonotonicNow();
// The same as an argument.
NowFunction MonotonicClock();

}  // namespace sluice

#endif  // SLUICE_COMMON_TIME_CLOCK_H_
