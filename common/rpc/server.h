// Server side: one builder for every process, so that all have health checks, reflection, message limits, the same
// security and the same behaviour when an address is taken.
#ifndef SLUICE_COMMON_RPC_SERVER_H_
#define SLUICE_COMMON_RPC_SERVER_H_

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/server.h>
#include <grpcpp/support/channel_arguments.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/rpc/access.h"
#include "common/rpc/credentials.h"

namespace sluice {

struct ServerSecurity {
  std::shared_ptr<const Credentials> credentials = Credentials::Plaintext();
  // Listen beyond loopback without TLS, which is refused otherwise.
  bool insecure = false;
  // "host:port" of a second server without TLS that answers health checks and nothing else, for probes. Empty: none.
  std::string health_address;
  // With TLS: clients need no certificate, and calls that a token may open are let through to their handlers, which
  // look at the token (common/security/method_rules.h).
  bool tokens_open = false;
  OnRefused on_refused;  // may be empty
};

class RpcServer {
 public:
  // Listens at "host:port" (port 0 picks one) and serves `services`, grpc.health.v1.Health and reflection.
  // The services must outlive the server. Unavailable, with the remedy, if the address cannot be bound: it is never
  // shared with another process. InvalidArgument: the address is not of loopback and there is no TLS.
  static absl::StatusOr<std::unique_ptr<RpcServer>> Start(const std::string& address,
                                                          const std::vector<grpc::Service*>& services,
                                                          const ServerSecurity& security = {});
  ~RpcServer() { Shutdown(absl::ZeroDuration()); }

  int port() const { return port_; }
  // "host:port" with the port that was bound.
  const std::string& address() const { return address_; }

  // Of the health server, with the port that was bound; empty if there is none.
  const std::string& health_address() const { return health_address_; }

  // What the health services answer for "" (the whole process). Serving from the start.
  void SetServing(bool serving);

  // No new calls; calls in progress get `grace`, then they are cancelled. Returns when all have ended. Idempotent.
  void Shutdown(absl::Duration grace);

  // A channel inside the process, for tests.
  std::shared_ptr<grpc::Channel> InProcessChannel() { return server_->InProcessChannel(grpc::ChannelArguments()); }

 private:
  RpcServer() = default;
  std::shared_ptr<const Credentials> credentials_;
  std::unique_ptr<grpc::Server> server_;
  grpc::CallbackGenericService nothing_else_;  // answers Unimplemented: gRPC starts no server without a service
  std::unique_ptr<grpc::Server> health_server_;
  std::string address_;
  std::string health_address_;
  int port_ = 0;
};

}  // namespace sluice

#endif  // SLUICE_COMMON_RPC_SERVER_H_
