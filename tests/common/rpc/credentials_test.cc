#include "common/rpc/credentials.h"

#include <gmock/gmock.h>

#include "common/file/file.h"
#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "common/rpc/status.h"
#include "common/security/handshake.h"
#include "common/security/method_rules.h"
#include "common/sync/bounded_queue.h"
#include "sluice/v1/policy.grpc.pb.h"
#include "tests/testing/certificates.h"
#include "tests/testing/empty_call.h"

namespace sluice {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// Sends a chunk whenever the test says so, until it says to end.
class SlowService : public v1::PolicyService::Service {
 public:
  grpc::Status FetchPolicy(grpc::ServerContext* context, const v1::FetchPolicyRequest*,
                           grpc::ServerWriter<v1::Chunk>* writer) override {
    const auto authorization = context->client_metadata().find("authorization");
    if (authorization != context->client_metadata().end()) {
      token_ = std::string(authorization->second.data(), authorization->second.size());
    }
    while (go_on_.Pop()) {
      if (!writer->Write(v1::Chunk())) break;
    }
    return grpc::Status::OK;
  }
  void SendOne() { go_on_.TryPush(true); }
  void End() { go_on_.Close(); }
  std::string token_;

 private:
  BoundedQueue<bool> go_on_{16};
};

class CredentialsTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = absl::StrCat(testing::TempDir(), "/credentials-",
                           testing::UnitTest::GetInstance()->current_test_info()->name());
    ASSERT_TRUE(RemoveAll(folder_).ok());
    ASSERT_TRUE(MakeDirectories(folder_).ok());
    ca_.Write(JoinPath(folder_, "ca.crt"));
  }
  void TearDown() override { service_.End(); }

  TlsFiles Issue(const std::string& role) { return ca_.Issue(folder_, role, role + ".sluice.internal"); }
  static std::shared_ptr<const Credentials> Load(const TlsFiles& files, RoleSet roles = {}) {
    CredentialOptions options;
    options.tls = files;
    options.roles = roles;
    return Credentials::Load(options).value();
  }
  // Of a rank that serves policies.
  std::unique_ptr<RpcServer> Serve(const TlsFiles& files, bool tokens_open = false) {
    ServerSecurity security;
    if (!files.empty()) security.credentials = Load(files);
    security.tokens_open = tokens_open;
    security.on_refused = [this](const PeerIdentity& peer, const std::string& method, const absl::Status&) {
      refused_ = peer.name + " " + method;
    };
    return RpcServer::Start("127.0.0.1:0", {&service_}, security).value();
  }
  absl::Status Fetch(const std::shared_ptr<grpc::Channel>& channel) {
    const auto stub = v1::PolicyService::NewStub(channel);
    grpc::ClientContext context;
    SetDeadline(&context, absl::Seconds(30));
    service_.End();
    return FromGrpc(stub->FetchPolicy(&context, v1::FetchPolicyRequest())->Finish());
  }
  absl::Status Fetch(const std::string& address, const TlsFiles& files, RoleSet server = {Role::kRank}) {
    return Fetch(MakeChannel(address, files.empty() ? Credentials::Plaintext() : Load(files), server).value());
  }
  // Why `files` cannot reach the server; the call itself must have failed for it.
  std::string Why(const std::string& address, const TlsFiles& files, RoleSet server = {Role::kRank}) {
    const absl::Status failed = Fetch(address, files, server);
    EXPECT_EQ(failed.code(), absl::StatusCode::kUnavailable) << failed;
    const auto credentials = files.empty() ? Credentials::Plaintext() : Load(files);
    const absl::Status why = credentials->Explain(failed, address, server);
    EXPECT_EQ(why.code(), absl::StatusCode::kPermissionDenied);
    EXPECT_EQ(credentials->CheckServer(address, server), why);
    return std::string(why.message());
  }

  const TestCa ca_{"the authority"};
  std::string folder_;
  SlowService service_;
  std::string refused_;
};

TEST_F(CredentialsTest, RolesReachEachOther) {
  const auto server = Serve(Issue("rank"));
  const TlsFiles actor = Issue("actor");
  EXPECT_TRUE(Fetch(server->address(), actor).ok());
  EXPECT_TRUE(Load(actor)->CheckServer(server->address(), {Role::kRank, Role::kActor}).ok());
}

TEST_F(CredentialsTest, ARoleThatMayNotIsToldSoAndReported) {
  const auto server = Serve(Issue("rank"));
  const absl::Status refused = Fetch(server->address(), Issue("reward"));
  EXPECT_EQ(refused.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(refused.message()),
              AllOf(HasSubstr("(reward) is for reward"), HasSubstr("is for actor alone")));
  EXPECT_EQ(refused_, "reward /sluice.v1.PolicyService/FetchPolicy");
}

// With a certificate that is for nothing each call of the table is refused before a handler is looked for, but health.
TEST_F(CredentialsTest, EveryCallIsRefusedToACertificateWithoutARole) {
  const auto server = Serve(Issue("rank"));
  const auto channel =
      MakeChannel(server->address(), Load(ca_.Issue(folder_, "stranger", "host.example.com")), {Role::kRank}).value();
  for (const MethodRule& rule : MethodRules()) {
    if (rule.method == "/grpc.health.v1.Health/Watch") continue;  // open, and without an end
    const absl::Status status = CallWithNothing(channel, std::string(rule.method));
    EXPECT_EQ(absl::IsPermissionDenied(status), !rule.open) << rule.method << " ended with " << status;
  }
}

TEST_F(CredentialsTest, AServerOfAnotherRoleIsNotBelieved) {
  const auto server = Serve(Issue("actor"));
  EXPECT_THAT(Why(server->address(), Issue("rank"), {Role::kCoordinator}),
              AllOf(HasSubstr("has a certificate for actor"), HasSubstr("a coordinator is wanted")));
}

TEST_F(CredentialsTest, TlsAndNoTlsDoNotMeet) {
  const auto plain = Serve({});
  EXPECT_THAT(Why(plain->address(), Issue("actor")), HasSubstr("speaks no TLS"));
  const auto server = Serve(Issue("rank"));
  EXPECT_THAT(Why(server->address(), {}), HasSubstr("speaks TLS alone"));
}

TEST_F(CredentialsTest, AnotherCaIsNamedOnEitherSide) {
  const auto server = Serve(Issue("rank"));
  const std::string elsewhere = JoinPath(folder_, "elsewhere");
  ASSERT_TRUE(MakeDirectories(elsewhere).ok());
  const TestCa other("another");
  other.Write(JoinPath(elsewhere, "ca.crt"));
  TlsFiles foreign = other.Issue(elsewhere, "foreign", "actor.sluice.internal");
  EXPECT_THAT(Why(server->address(), foreign), HasSubstr("issued by the authority, is not from a CA in"));
  // It believes the server, and the server does not believe it: its own CA file names both.
  ASSERT_TRUE(
      WriteFileAtomically(foreign.ca, ReadFile(foreign.ca).value() + ReadFile(JoinPath(folder_, "ca.crt")).value())
          .ok());
  EXPECT_THAT(Why(server->address(), foreign),
              AllOf(HasSubstr("refuses the certificate in"), HasSubstr("foreign.crt")));
}

TEST_F(CredentialsTest, AServerWhoseCertificateExpiredIsNamed) {
  const TlsFiles files = Issue("rank");
  const auto server = Serve(files);
  ca_.Issue(folder_, "rank", "rank.sluice.internal", absl::Now() - absl::Hours(48), absl::Now() - absl::Hours(24));
  const TlsFiles actor = Issue("actor");
  // gRPC takes the file when it looks next.
  absl::Status failed = absl::OkStatus();
  while (failed.ok()) failed = Load(actor)->CheckServer(server->address(), {Role::kRank});
  EXPECT_THAT(std::string(failed.message()), AllOf(HasSubstr("expired at"), HasSubstr("renew it")));
}

TEST_F(CredentialsTest, WithoutACertificateATokenIsNeeded) {
  TlsFiles none;
  none.ca = JoinPath(folder_, "ca.crt");
  const auto strict = Serve(Issue("rank"));
  EXPECT_THAT(Why(strict->address(), none), HasSubstr("wants a certificate"));
  const auto open = Serve(Issue("rank"), /*tokens_open=*/true);
  EXPECT_EQ(Fetch(open->address(), none).code(), absl::StatusCode::kPermissionDenied) << "FetchPolicy is for actors";
}

TEST_F(CredentialsTest, NobodyThereIsNotAMatterOfTls) {
  const TlsFiles actor = Issue("actor");
  const absl::Status gone = absl::UnavailableError("gone");
  EXPECT_EQ(Load(actor)->Explain(gone, "127.0.0.1:1", {Role::kRank}), gone);
  EXPECT_TRUE(Load(actor)->CheckServer("127.0.0.1:1", {Role::kRank}).ok());
}

TEST_F(CredentialsTest, NewCertificatesAreTakenWhileAStreamGoesOn) {
  const TlsFiles rank = Issue("rank");
  const auto server = Serve(rank);
  const TlsFiles actor = Issue("actor");
  const auto channel = MakeChannel(server->address(), Load(actor), {Role::kRank}).value();
  const auto stub = v1::PolicyService::NewStub(channel);
  grpc::ClientContext context;
  SetDeadline(&context, absl::Seconds(120));
  const auto stream = stub->FetchPolicy(&context, v1::FetchPolicyRequest());
  v1::Chunk chunk;
  service_.SendOne();
  ASSERT_TRUE(stream->Read(&chunk));

  // The whole installation moves to another CA, as it may: first everybody believes both.
  const TestCa next("the next authority");
  const std::string both = JoinPath(folder_, "next.crt");
  next.Write(both);
  ASSERT_TRUE(WriteFileAtomically(JoinPath(folder_, "ca.crt"),
                                  ReadFile(JoinPath(folder_, "ca.crt")).value() + ReadFile(both).value())
                  .ok());
  next.Issue(folder_, "rank", "rank.sluice.internal");
  TlsFiles believes_next_alone = next.Issue(folder_, "actor-2", "actor.sluice.internal");
  believes_next_alone.ca = both;
  absl::Status reached = absl::UnavailableError("");
  for (int tries = 0; !reached.ok() && tries < 3000; ++tries) {
    reached = TryHandshake(server->address(), believes_next_alone, {Role::kRank}, absl::Seconds(2));
  }
  EXPECT_TRUE(reached.ok()) << reached;
  service_.SendOne();
  EXPECT_TRUE(stream->Read(&chunk)) << "the stream goes on with the certificates of its beginning";
  service_.End();
  EXPECT_FALSE(stream->Read(&chunk));
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(CredentialsTest, ATokenTravelsOverTlsOrLoopbackAlone) {
  CredentialOptions options;
  options.token_file = JoinPath(folder_, "token");
  ASSERT_TRUE(WriteFileAtomically(options.token_file, "secret\n").ok());
  const auto credentials = Credentials::Load(options).value();
  EXPECT_EQ(MakeChannel("192.0.2.1:7070", credentials, {}).status().code(), absl::StatusCode::kPermissionDenied);
  const auto server = Serve({});
  EXPECT_TRUE(Fetch(MakeChannel(server->address(), credentials, {}).value()).ok());
  EXPECT_EQ(service_.token_, "Bearer secret");
}

TEST_F(CredentialsTest, AnUnfitTokenFileIsRefused) {
  CredentialOptions options;
  options.token_file = JoinPath(folder_, "token");
  EXPECT_EQ(Credentials::Load(options).status().code(), absl::StatusCode::kInvalidArgument);
  for (const char* text : {"", " \n", "two words", "line\nline"}) {
    ASSERT_TRUE(WriteFileAtomically(options.token_file, text).ok());
    EXPECT_EQ(Credentials::Load(options).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST_F(CredentialsTest, TellsWhenItsCertificatesExpire) {
  const absl::Time until = absl::FromUnixSeconds(absl::ToUnixSeconds(absl::Now()) + 86400);
  const auto credentials =
      Load(ca_.Issue(folder_, "rank", "rank.sluice.internal", absl::Now() - absl::Hours(1), until));
  Metrics metrics;
  credentials->AddMetrics(&metrics);
  EXPECT_THAT(metrics.Text(),
              HasSubstr(absl::StrCat("sluice_certificate_expiry_timestamp_seconds{file=\"certificate\"} ",
                                     absl::ToUnixSeconds(until))));
}

}  // namespace
}  // namespace sluice
