// Server side: one builder for every process, so that all have health checks, reflection, message limits and the
// same behaviour when an address is taken.
#ifndef SLUICE_COMMON_RPC_SERVER_H_
#define SLUICE_COMMON_RPC_SERVER_H_

#include <grpcpp/server.h>
#include <grpcpp/support/channel_arguments.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace sluice {

class RpcServer {
 public:
  // Listens at "host:port" (port 0 picks one) and serves `services`, grpc.health.v1.Health and reflection.
  // The services must outlive the server. Unavailable, with the remedy, if the address cannot be bound: it is never
  // shared with another process.
  static absl::StatusOr<std::unique_ptr<RpcServer>> Start(const std::string& address,
                                                          const std::vector<grpc::Service*>& services);
  ~RpcServer() { Shutdown(absl::ZeroDuration()); }

  int port() const { return port_; }
  // "host:port" with the port that was bound.
  const std::string& address() const { return address_; }

  // What the health service answers for "" (the whole process). Serving from the start.
  void SetServing(bool serving);

  // No new calls; calls in progress get `grace`, then they are cancelled. Returns when all have ended. Idempotent.
  void Shutdown(absl::Duration grace);

  // A channel inside the process, for tests.
  std::shared_ptr<grpc::Channel> InProcessChannel() { return server_->InProcessChannel(grpc::ChannelArguments()); }

 private:
  RpcServer() = default;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
  int port_ = 0;
};

}  // namespace sluice

#endif  // SLUICE_COMMON_RPC_SERVER_H_
