#include "common/time/clock.h"

#include <chrono>

#include "absl/time/clock.h"

namespace sluice {

NowFunction WallClock() {
  return [] { return absl::Now(); };
}

absl::Time MonotonicNow() {
  static const absl::Time wall_start = absl::Now();
  static const std::chrono::steady_clock::time_point steady_start = std::chrono::steady_clock::now();
  return wall_start + absl::FromChrono(std::chrono::steady_clock::now() - steady_start);
}

NowFunction MonotonicClock() { return MonotonicNow; }

}  // namespace sluice
