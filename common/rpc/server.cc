#include "common/rpc/server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/impl/server_builder_option.h>
#include <grpcpp/impl/server_builder_plugin.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>

#include <chrono>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/rpc/channel.h"
#include "common/status/status.h"

namespace sluice {
namespace {

// Reflection is a switch of the whole process; the server of health checks has none of it all the same.
class WithoutPlugins : public grpc::ServerBuilderOption {
 public:
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override { plugins->clear(); }
};

absl::Status CheckListening(const std::string& address) {
  const size_t colon = address.rfind(':');
  int port = 0;
  // gRPC itself would take port 99999 for 34463.
  if (colon == std::string::npos || colon == 0 || !absl::SimpleAtoi(address.substr(colon + 1), &port) || port < 0 ||
      port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("want HOST:PORT to listen at with a port from 0 (any) to 65535, got '", address, "'"));
  }
  return absl::OkStatus();
}

void SetLimits(grpc::ServerBuilder* builder) {
  builder->SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder->SetMaxSendMessageSize(kMaxMessageBytes);
  // Without this gRPC binds with SO_REUSEPORT, and two processes would silently share the port's calls.
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 20'000);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  // Clients ping every 20 s; the default of 5 minutes would send them away with "too many pings".
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10'000);
}

// Starts what `builder` has at `address`, and says where that is.
absl::StatusOr<std::unique_ptr<grpc::Server>> Listen(grpc::ServerBuilder* builder, const std::string& address,
                                                     std::shared_ptr<grpc::ServerCredentials> credentials,
                                                     std::string* bound, int* port) {
  builder->AddListeningPort(address, std::move(credentials), port);
  std::unique_ptr<grpc::Server> server = builder->BuildAndStart();
  if (server == nullptr || *port == 0) {
    return absl::UnavailableError(absl::StrCat("cannot listen at ", address,
                                               ": the address is in use or not of this machine; stop the other "
                                               "process or choose another address"));
  }
  *bound = absl::StrCat(address.substr(0, address.rfind(':')), ":", *port);
  return server;
}

}  // namespace

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::Start(const std::string& address,
                                                            const std::vector<grpc::Service*>& services,
                                                            const ServerSecurity& security) {
  SLUICE_RETURN_IF_ERROR(CheckListening(address));
  const Credentials& credentials = *security.credentials;
  if (!credentials.has_tls() && !security.insecure && !IsLoopback(address)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--address ", address,
                     " is open to other machines, and nothing would protect it; give --tls-ca, --tls-cert and "
                     "--tls-key, or --insecure if the network is trusted"));
  }
  // These are process-wide switches, to be thrown before the first builder.
  static const bool initialized = [] {
    InitGrpcLogging();
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    return true;
  }();
  static_cast<void>(initialized);

  std::unique_ptr<RpcServer> server(new RpcServer);
  server->credentials_ = security.credentials;
  std::shared_ptr<grpc::ServerCredentials> wire = credentials.ForServer(security.tokens_open);
  if (credentials.has_tls()) {
    wire->SetAuthMetadataProcessor(MakeAccessProcessor(security.tokens_open, security.on_refused));
  }
  grpc::ServerBuilder builder;
  SetLimits(&builder);
  for (grpc::Service* service : services) builder.RegisterService(service);
  SLUICE_ASSIGN_OR_RETURN(server->server_,
                          Listen(&builder, address, std::move(wire), &server->address_, &server->port_));
  if (security.health_address.empty()) return server;

  SLUICE_RETURN_IF_ERROR(CheckListening(security.health_address));
  grpc::ServerBuilder health_builder;
  SetLimits(&health_builder);
  health_builder.SetOption(std::make_unique<WithoutPlugins>());
  health_builder.RegisterCallbackGenericService(&server->nothing_else_);
  int health_port = 0;
  SLUICE_ASSIGN_OR_RETURN(server->health_server_,
                          Listen(&health_builder, security.health_address, grpc::InsecureServerCredentials(),
                                 &server->health_address_, &health_port));
  return server;
}

void RpcServer::SetServing(bool serving) {
  for (grpc::Server* const server : {server_.get(), health_server_.get()}) {
    if (server != nullptr) server->GetHealthCheckService()->SetServingStatus(serving);
  }
}

void RpcServer::Shutdown(absl::Duration grace) {
  if (health_server_ != nullptr) {
    health_server_->Shutdown(std::chrono::system_clock::now());
    health_server_->Wait();
    health_server_ = nullptr;
  }
  if (server_ == nullptr) return;
  server_->Shutdown(std::chrono::system_clock::now() + absl::ToChronoMicroseconds(grace));
  server_->Wait();
}

}  // namespace sluice
