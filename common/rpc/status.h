// Status over the wire: Abseil's codes and gRPC's are the same numbers, message texts travel unchanged.
#ifndef SLUICE_COMMON_RPC_STATUS_H_
#define SLUICE_COMMON_RPC_STATUS_H_

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace sluice {

absl::Status FromGrpc(const grpc::Status& status);
// As FromGrpc, for a call that this process did not cancel: Cancelled says then that the server went away in the middle
// of it, which is Unavailable, and not that somebody wanted an end.
absl::Status FromServer(const grpc::Status& status);
// Messages longer than 4 KiB are cut: a status travels in a trailer, and trailers are limited to 8 KiB by default.
grpc::Status ToGrpc(const absl::Status& status);

}  // namespace sluice

#endif  // SLUICE_COMMON_RPC_STATUS_H_
