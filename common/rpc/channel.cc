#include "common/rpc/channel.h"

#include <arpa/inet.h>
#include <grpc/support/log.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>
#include <grpcpp/support/client_interceptor.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <chrono>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/log/log.h"
#include "common/status/status.h"

namespace sluice {
namespace {

void WriteGrpcLog(gpr_log_func_args* line) {
  Log(LogLevel::kDebug, line->message, {{"file", line->file}, {"line", line->line}});
}

// Adds the token to each call. Call credentials of gRPC would refuse to on a connection without TLS, also on loopback.
class TokenSender : public grpc::experimental::Interceptor {
 public:
  explicit TokenSender(std::shared_ptr<const Credentials> credentials) : credentials_(std::move(credentials)) {}

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    if (methods->QueryInterceptionHookPoint(grpc::experimental::InterceptionHookPoints::PRE_SEND_INITIAL_METADATA)) {
      // If it cannot be read any more, the server says that it wants one.
      if (const absl::StatusOr<std::string> token = credentials_->ReadToken(); token.ok()) {
        methods->GetSendInitialMetadata()->insert({"authorization", absl::StrCat("Bearer ", *token)});
      }
    }
    methods->Proceed();
  }

 private:
  const std::shared_ptr<const Credentials> credentials_;
};

class TokenSenderFactory : public grpc::experimental::ClientInterceptorFactoryInterface {
 public:
  explicit TokenSenderFactory(std::shared_ptr<const Credentials> credentials) : credentials_(std::move(credentials)) {}
  grpc::experimental::Interceptor* CreateClientInterceptor(grpc::experimental::ClientRpcInfo*) override {
    return new TokenSender(credentials_);
  }

 private:
  const std::shared_ptr<const Credentials> credentials_;
};

grpc::ChannelArguments Arguments() {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetMaxSendMessageSize(kMaxMessageBytes);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 20'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  // Also limits one attempt to connect: a distant or busy server needs its time. One that is not there refuses at once.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 20'000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 5'000);
  // A proxy of the environment is for the world outside; members of one installation talk directly.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return arguments;
}

}  // namespace

void InitGrpcLogging() {
  static const bool initialized = [] {
    gpr_set_log_function(WriteGrpcLog);
    return true;
  }();
  static_cast<void>(initialized);
}

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address) {
  InitGrpcLogging();
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), Arguments());
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const std::string& address,
                                                           const std::shared_ptr<const Credentials>& credentials,
                                                           RoleSet server) {
  InitGrpcLogging();
  const std::shared_ptr<grpc::ChannelCredentials> wire = credentials->ForChannel(server);
  if (credentials->options().token_file.empty()) return grpc::CreateCustomChannel(address, wire, Arguments());
  if (!credentials->has_tls() && !IsLoopback(address)) {
    return absl::PermissionDeniedError(
        absl::StrCat("a token goes to ", address,
                     " over TLS alone, so that nobody else reads it; name the server's CA with --tls-ca"));
  }
  std::vector<std::unique_ptr<grpc::experimental::ClientInterceptorFactoryInterface>> interceptors;
  interceptors.push_back(std::make_unique<TokenSenderFactory>(credentials));
  return grpc::experimental::CreateCustomChannelWithInterceptors(address, wire, Arguments(), std::move(interceptors));
}

bool IsLoopback(absl::string_view address) {
  std::string host(address.substr(0, address.rfind(':')));
  if (absl::StartsWith(host, "[") && absl::EndsWith(host, "]")) host = host.substr(1, host.size() - 2);
  if (absl::EqualsIgnoreCase(host, "localhost")) return true;
  in_addr v4;
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) return (ntohl(v4.s_addr) >> 24) == 127;
  in6_addr v6;
  return inet_pton(AF_INET6, host.c_str(), &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

absl::Status CheckAddress(absl::string_view what, absl::string_view address) {
  const size_t colon = address.rfind(':');
  int port = 0;
  if (colon == absl::string_view::npos || colon == 0 || !absl::SimpleAtoi(address.substr(colon + 1), &port) ||
      port < 1 || port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": want HOST:PORT with a port from 1 to 65535, got '", address, "'"));
  }
  return absl::OkStatus();
}

void SetDeadline(grpc::ClientContext* context, absl::Duration timeout) {
  context->set_deadline(std::chrono::system_clock::now() + absl::ToChronoMicroseconds(timeout));
}

}  // namespace sluice
