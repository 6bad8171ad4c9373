// What the backends check alike before a call, and what they say of a group that is dead.
#ifndef SLUICE_COMMON_COLLECTIVE_CHECK_CALL_H_
#define SLUICE_COMMON_COLLECTIVE_CHECK_CALL_H_

#include <ATen/core/Tensor.h>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace sluice {

// All InvalidArgument, with what was wanted and what came. `what` names the call: "all-reduce".
absl::Status CheckTensor(const at::Tensor& tensor, absl::string_view what);
absl::Status CheckRoot(int root, int world_size, absl::string_view what);
absl::Status CheckRank(int rank, int world_size);

// Unavailable. `place` says which call of which rank and epoch.
absl::Status DeadGroupError(absl::string_view place);

}  // namespace sluice

#endif  // SLUICE_COMMON_COLLECTIVE_CHECK_CALL_H_
