// Client side: channels with Sluice's limits and keepalive, and deadlines.
#ifndef SLUICE_COMMON_RPC_CHANNEL_H_
#define SLUICE_COMMON_RPC_CHANNEL_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/rpc/credentials.h"
#include "common/security/role.h"

namespace sluice {

// The largest message either side takes. A little above the largest chunk (4 MiB) and the largest group.
inline constexpr int kMaxMessageBytes = 16 << 20;

// Sends gRPC's own log lines through common/log at debug level: what matters of them comes back as a status.
// Idempotent; MakeChannel and RpcServer::Start call it.
void InitGrpcLogging();

// A lazily connected plaintext channel to "host:port". Reconnects by itself with at most 5 s between tries;
// keepalive pings notice a dead peer within 30 s. Calls fail fast with Unavailable while there is no connection.
std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address);

// The same as `credentials` want it, to a server that has one of the roles `server`. It may outlive `credentials`;
// their token, if they have one, goes with every call as "authorization: Bearer TOKEN". PermissionDenied: a token may
// not travel to another machine without TLS.
absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const std::string& address,
                                                           const std::shared_ptr<const Credentials>& credentials,
                                                           RoleSet server);

// Whether the host of "host:port" is this machine for certain: localhost, an address of 127.0.0.0/8, or ::1. Other
// names are not looked up.
bool IsLoopback(absl::string_view address);

// InvalidArgument unless `address` is "host:port" with a port in [1, 65535]. `what` names the flag or field.
absl::Status CheckAddress(absl::string_view what, absl::string_view address);

// Sets the deadline of a call that starts now.
void SetDeadline(grpc::ClientContext* context, absl::Duration timeout);

}  // namespace sluice

#endif  // SLUICE_COMMON_RPC_CHANNEL_H_
