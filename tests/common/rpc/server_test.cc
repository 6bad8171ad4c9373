#include "common/rpc/server.h"

#include <gtest/gtest.h>

#include "common/rpc/channel.h"
#include "common/rpc/status.h"
#include "sluice/v1/policy.grpc.pb.h"
#include "tests/testing/empty_call.h"

namespace sluice {
namespace {

// Answers NotFound to FetchPolicy and waits for the client's cancellation in FetchCatalog.
class ScriptedService : public v1::PolicyService::Service {
 public:
  grpc::Status FetchPolicy(grpc::ServerContext*, const v1::FetchPolicyRequest*,
                           grpc::ServerWriter<v1::Chunk>*) override {
    return ToGrpc(absl::NotFoundError("version 7 is no longer kept"));
  }
};

TEST(RpcServerTest, ServesAtAPortOfItsChoice) {
  ScriptedService service;
  auto server = RpcServer::Start("127.0.0.1:0", {&service});
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_GT((*server)->port(), 0);

  auto stub = v1::PolicyService::NewStub(MakeChannel((*server)->address()));
  grpc::ClientContext context;
  SetDeadline(&context, absl::Seconds(30));
  context.set_wait_for_ready(true);
  auto reader = stub->FetchPolicy(&context, v1::FetchPolicyRequest());
  v1::Chunk chunk;
  EXPECT_FALSE(reader->Read(&chunk));
  EXPECT_EQ(FromGrpc(reader->Finish()), absl::NotFoundError("version 7 is no longer kept"));
}

TEST(RpcServerTest, RefusesAPortInUse) {
  auto first = RpcServer::Start("127.0.0.1:0", {});
  ASSERT_TRUE(first.ok()) << first.status();
  const absl::Status second = RpcServer::Start((*first)->address(), {}).status();
  EXPECT_EQ(second.code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(std::string(second.message()).find((*first)->address()), std::string::npos);
}

TEST(RpcServerTest, RefusesAnAddressWithoutAPort) {
  for (const char* address :
       {"localhost", ":7070", "localhost:", "localhost:http", "127.0.0.1:99999", "127.0.0.1:-1"}) {
    EXPECT_EQ(RpcServer::Start(address, {}).status().code(), absl::StatusCode::kInvalidArgument) << address;
  }
}

TEST(RpcServerTest, RefusesToBeOpenToOtherMachinesWithoutTls) {
  for (const char* address : {"0.0.0.0:0", "[::]:0", "192.0.2.1:0", "example.com:0"}) {
    const absl::Status refused = RpcServer::Start(address, {}).status();
    EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument) << address;
    EXPECT_NE(std::string(refused.message()).find("--insecure"), std::string::npos) << refused;
  }
  ServerSecurity security;
  security.insecure = true;
  EXPECT_TRUE(RpcServer::Start("0.0.0.0:0", {}, security).ok());
}

bool Answers(const std::string& address, const std::string& method) {
  const absl::Status status = CallWithNothing(MakeChannel(address), method);
  return !absl::IsUnimplemented(status) && !absl::IsUnavailable(status);
}

TEST(RpcServerTest, TheHealthServerServesHealthAlone) {
  ScriptedService service;
  ServerSecurity security;
  security.health_address = "127.0.0.1:0";
  auto server = RpcServer::Start("127.0.0.1:0", {&service}, security);
  ASSERT_TRUE(server.ok()) << server.status();
  const std::string health = (*server)->health_address();
  ASSERT_NE(health, (*server)->address());
  EXPECT_TRUE(Answers(health, "/grpc.health.v1.Health/Check"));
  EXPECT_FALSE(Answers(health, "/sluice.v1.PolicyService/FetchPolicy"));
  EXPECT_FALSE(Answers(health, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"));
  EXPECT_TRUE(Answers((*server)->address(), "/sluice.v1.PolicyService/FetchPolicy"));
  (*server)->Shutdown(absl::ZeroDuration());
  EXPECT_FALSE(Answers(health, "/grpc.health.v1.Health/Check"));
}

TEST(RpcServerTest, ACallWithoutServerEndsAtItsDeadlineOrBefore) {
  std::string address;
  {
    auto server = RpcServer::Start("127.0.0.1:0", {});
    ASSERT_TRUE(server.ok());
    address = (*server)->address();
  }
  auto stub = v1::PolicyService::NewStub(MakeChannel(address));
  grpc::ClientContext context;
  SetDeadline(&context, absl::Seconds(30));
  v1::Chunk chunk;
  auto reader = stub->FetchPolicy(&context, v1::FetchPolicyRequest());
  EXPECT_FALSE(reader->Read(&chunk));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

}  // namespace
}  // namespace sluice
