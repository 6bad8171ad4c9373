// Named places where a test kills, stops, delays or fails a process (docs/failpoints.md).
//
//   SLUICE_FAILPOINT("actor/before_send");
//   SLUICE_RETURN_IF_ERROR(SLUICE_FAILPOINT_STATUS("checkpoint/state"));
//
// Only the preset `faults` has them. In every other build the first macro is nothing and the second an OK status; no
// name, no string and no symbol of theirs is in the programs, which a test looks for. Names are those of
// failpoint_names.h; another one does not compile. Thread-safe.
#ifndef SLUICE_COMMON_FAILPOINT_FAILPOINT_H_
#define SLUICE_COMMON_FAILPOINT_FAILPOINT_H_

#include <failpoint_switch.h>

#include "absl/status/status.h"

#if SLUICE_HAS_FAILPOINTS
#include "common/failpoint/failpoint_names.h"
#endif

namespace sluice {

// Takes what the environment variable SLUICE_FAILPOINTS asks for. To be called by main before any thread starts.
// InvalidArgument, with the remedy: it names what there is not, or cannot be read, or this build has no failpoints.
absl::Status StartFailpoints();

#if SLUICE_HAS_FAILPOINTS

// What a failpoint does when it is passed. The status is OK unless an error was asked for.
absl::Status PassFailpoint(size_t index);

#define SLUICE_FAILPOINT(name) ::sluice::PassFailpoint(::sluice::FailpointIndex(name, false)).IgnoreError()
#define SLUICE_FAILPOINT_STATUS(name) ::sluice::PassFailpoint(::sluice::FailpointIndex(name, true))

#else

#define SLUICE_FAILPOINT(name) static_cast<void>(0)
#define SLUICE_FAILPOINT_STATUS(name) ::absl::OkStatus()

#endif

}  // namespace sluice

#endif  // SLUICE_COMMON_FAILPOINT_FAILPOINT_H_
