#include "common/time/clock.h"

#include <chrono>

#include "absl/time/clock.h"

namespace sluice {

NowFunction WallClock() {
  return [] { return absl::Now(); };
}

NowFunction MonotonicClock() {
  static const absl::Time wall_start = absl::Now();
  static const std::chrono::steady_clock::time_point steady_start = std::chrono::steady_clock::now();
  return [] { return wall_start + absl::FromChrono(std::chrono::steady_clock::now() - steady_start); };
}

}  // namespace sluice
