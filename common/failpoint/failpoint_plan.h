// What SLUICE_FAILPOINTS asks for, and the counting of passes. Pure but for the effects, which the caller gives.
//
//   plan  := entry (";" entry)*
//   entry := pattern "=" action ["@" pass]     pass: 1 is the first one and the default
//   pattern: a name, or the start of names and "*"
//   action:  kill | stop | exit(0..255) | sleep(2s) | error(UNAVAILABLE), error(NO_SPACE), ...
#ifndef SLUICE_COMMON_FAILPOINT_FAILPOINT_PLAN_H_
#define SLUICE_COMMON_FAILPOINT_FAILPOINT_PLAN_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/failpoint/failpoint_names.h"

namespace sluice {

enum class FailpointEffect { kNone, kKill, kStop, kExit, kSleep, kError };

struct FailpointAction {
  FailpointEffect effect = FailpointEffect::kNone;
  uint64_t pass = 1;     // acts when it is passed for this time, and only then
  int exit_code = 0;     // kExit
  absl::Duration sleep;  // kSleep
  absl::Status error;    // kError
  std::string text;      // as written, for the log
};

// One action a name, in the order of `names`; later entries win. InvalidArgument says which entry is wrong and why.
absl::StatusOr<std::vector<FailpointAction>> ParseFailpoints(absl::string_view text,
                                                             absl::Span<const FailpointName> names);

// Thread-safe.
class FailpointPlan {
 public:
  // `act` does what is asked for (kill, stop, exit, sleep); it is told the name too. Errors are returned instead.
  using Act = std::function<void(absl::string_view name, const FailpointAction&)>;

  // `names` must outlive the plan.
  FailpointPlan(absl::Span<const FailpointName> names, std::vector<FailpointAction> actions, Act act);

  // Counts a pass of the name at `index`, and acts if it is the one.
  absl::Status Pass(size_t index);

 private:
  const absl::Span<const FailpointName> names_;
  const std::vector<FailpointAction> actions_;
  const Act act_;
  const std::unique_ptr<std::atomic<uint64_t>[]> passes_;
};

}  // namespace sluice

#endif  // SLUICE_COMMON_FAILPOINT_FAILPOINT_PLAN_H_
