// Process exit codes, one table for every binary (docs/reference: exit codes).
#ifndef SLUICE_COMMON_STATUS_EXIT_CODE_H_
#define SLUICE_COMMON_STATUS_EXIT_CODE_H_

#include "absl/status/status.h"

namespace sluice {

enum class ExitCode : int {
  kDone = 0,
  kFailed = 1,      // anything not named below, and our own bugs
  kUsage = 2,       // bad flag, bad spec, bad argument
  kIntegrity = 3,   // data or checkpoint missing, damaged or not what its manifest says
  kPermission = 4,  // not allowed, or incompatible versions
  kPreempted = 10,  // stopped after a clean checkpoint; run again to resume
  kTransient = 11,  // peer, network, device or collective; retrying may help
  kCancelled = 12,  // on request
  kHeld = 13,       // diverged or budget spent: needs a person
  kNoSpace = 14,    // storage full or not writable
};

// The exit code that a failed operation ends its process with. OK maps to kDone. A status made by
// NoSpaceError maps to kNoSpace, one made by PreemptedError to kPreempted, HeldError to kHeld.
ExitCode ExitCodeFor(const absl::Status& status);

// Statuses whose exit code the canonical code alone does not tell.
absl::Status NoSpaceError(absl::string_view message);    // ResourceExhausted
absl::Status PreemptedError(absl::string_view message);  // Aborted
absl::Status HeldError(absl::string_view message);       // FailedPrecondition

}  // namespace sluice

#endif  // SLUICE_COMMON_STATUS_EXIT_CODE_H_
