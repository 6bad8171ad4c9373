#include "learner/rpc/guarded_job_service.h"

#include <gmock/gmock.h>
#include <google/protobuf/descriptor.h>

#include <nlohmann/json.hpp>

#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "tests/learner/rpc/coordinator_fixture.h"
#include "tests/testing/empty_call.h"

namespace sluice::learner {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr absl::StatusCode kDenied = absl::StatusCode::kPermissionDenied;
constexpr absl::StatusCode kUnauthenticated = absl::StatusCode::kUnauthenticated;

// Ada and Bob submit, Eve reads, Root does everything, Old did.
class GuardedJobServiceTest : public CoordinatorFixture {
 protected:
  void SetUp() override {
    CoordinatorFixture::SetUp();
    server_.reset();
    options_.tokens_path = JoinPath(folder_, "tokens");
    options_.audit_path = JoinPath(folder_, "audit.jsonl");
    const absl::Time now = absl::Now();
    const struct {
      const char* name;
      Scopes scopes;
      absl::Time made;
    } people[] = {{"ada", {.submit = true}, now},
                  {"bob", {.submit = true}, now},
                  {"eve", {.read = true}, now},
                  {"root", {.admin = true}, now},
                  {"old", {.admin = true}, now - absl::Hours(48)}};
    for (const auto& person : people) {
      const std::string entropy(32, person.name[0]);
      const auto token = MakeToken(entropy, {person.name, person.scopes}, person.made + absl::Hours(24), person.made);
      ASSERT_TRUE(token.ok()) << token.status();
      ASSERT_TRUE(AddToken(options_.tokens_path, token->entry).ok());
      secrets_[person.name] = token->secret;
    }
    StartServer();
    as_ada_ = SubmitAs("ada", "of-ada").value().job_id();
    as_bob_ = SubmitAs("bob", "of-bob").value().job_id();
  }

  // A call as somebody; "": without a token. A name that nobody has is sent as the secret itself.
  absl::Status As(const std::string& who, const std::function<grpc::Status(grpc::ClientContext*)>& call) {
    grpc::ClientContext context;
    SetDeadline(&context, absl::Seconds(30));
    if (!who.empty()) {
      const std::string secret = secrets_.count(who) > 0 ? secrets_[who] : who;
      context.AddMetadata("authorization", absl::StrCat("Bearer ", secret));
    }
    return FromGrpc(call(&context));
  }
  absl::StatusOr<v1::SubmitResponse> SubmitAs(const std::string& who, const std::string& request_id) {
    const std::string yaml = "kind: sft\nname: n\ndata: d\n";
    v1::SubmitRequest request;
    request.set_request_id(request_id);
    *request.mutable_spec() = ResolveSpec(yaml, "s.yaml")->given;
    request.set_spec_yaml(yaml);
    v1::SubmitResponse response;
    const absl::Status status =
        As(who, [&](grpc::ClientContext* context) { return jobs_->Submit(context, request, &response); });
    if (!status.ok()) return status;
    return response;
  }
  absl::Status DescribeAs(const std::string& who, const std::string& job, v1::DescribeResponse* response = nullptr) {
    v1::DescribeRequest request;
    request.set_job_id(job);
    v1::DescribeResponse ignored;
    return As(who, [&](grpc::ClientContext* context) {
      return jobs_->Describe(context, request, response == nullptr ? &ignored : response);
    });
  }
  absl::Status CancelAs(const std::string& who, const std::string& job) {
    v1::CancelRequest request;
    request.set_job_id(job);
    v1::CancelResponse response;
    return As(who, [&](grpc::ClientContext* context) { return jobs_->Cancel(context, request, &response); });
  }
  absl::Status WatchAs(const std::string& who, const std::string& job) {
    v1::WatchRequest request;
    request.set_job_id(job);
    request.set_until_now(true);
    return As(who, [&](grpc::ClientContext* context) {
      const auto reader = jobs_->Watch(context, request);
      v1::JobEvent event;
      while (reader->Read(&event)) {
      }
      return reader->Finish();
    });
  }
  std::vector<std::string> ListAs(const std::string& who, int limit = 0) {
    v1::ListRequest request;
    request.set_limit(limit);
    v1::ListResponse response;
    EXPECT_TRUE(As(who, [&](grpc::ClientContext* context) { return jobs_->List(context, request, &response); }).ok());
    std::vector<std::string> ids;
    for (const v1::JobSummary& job : response.jobs()) ids.push_back(job.job_id());
    return ids;
  }
  std::vector<nlohmann::json> Audited() {
    std::vector<nlohmann::json> lines;
    const std::string text = ReadFile(options_.audit_path).value();
    for (const auto& [name, secret] : secrets_) EXPECT_THAT(text, Not(HasSubstr(secret)));
    for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
      lines.push_back(nlohmann::json::parse(line.begin(), line.end()));
    }
    return lines;
  }

  std::map<std::string, std::string> secrets_;
  std::string as_ada_, as_bob_;
};

TEST_F(GuardedJobServiceTest, WithoutATokenThatIsKnownAndValidNothingIsOpen) {
  for (const char* who : {"", "old", "sluice_forged"}) {
    EXPECT_EQ(DescribeAs(who, as_ada_).code(), kUnauthenticated) << who;
    EXPECT_EQ(SubmitAs(who, "r").status().code(), kUnauthenticated) << who;
    EXPECT_EQ(CancelAs(who, as_ada_).code(), kUnauthenticated) << who;
    EXPECT_EQ(WatchAs(who, as_ada_).code(), kUnauthenticated) << who;
  }
  EXPECT_THAT(std::string(DescribeAs("old", as_ada_).message()), HasSubstr("the token of old expired at"));
}

// Also what a later release adds: a call of the service is refused, or not there, to who has no token.
TEST_F(GuardedJobServiceTest, EveryCallWantsAToken) {
  const google::protobuf::ServiceDescriptor* service =
      v1::SubmitRequest::descriptor()->file()->FindServiceByName("JobService");
  ASSERT_NE(service, nullptr);
  const auto channel = MakeChannel(server_->address());
  for (int i = 0; i < service->method_count(); ++i) {
    const std::string path = absl::StrCat("/", service->full_name(), "/", service->method(i)->name());
    EXPECT_EQ(CallWithNothing(channel, path).code(), kUnauthenticated) << path;
  }
}

TEST_F(GuardedJobServiceTest, WhoSubmittedMayAllWithTheOwnJob) {
  EXPECT_TRUE(DescribeAs("ada", as_ada_).ok());
  EXPECT_TRUE(WatchAs("ada", as_ada_).ok());
  EXPECT_THAT(ListAs("ada"), ElementsAre(as_ada_));
  EXPECT_TRUE(CancelAs("ada", as_ada_).ok());
}

TEST_F(GuardedJobServiceTest, AJobOfSomebodyElseLooksLikeNone) {
  const auto unlike = [](const absl::Status& status, const std::string& id) {
    EXPECT_EQ(status.code(), kDenied);
    std::string text(status.message());
    return text.replace(text.find(id), id.size(), "ID");
  };
  EXPECT_EQ(unlike(DescribeAs("ada", as_bob_), as_bob_), unlike(DescribeAs("ada", "n-000000"), "n-000000"));
  EXPECT_EQ(unlike(CancelAs("ada", as_bob_), as_bob_), unlike(CancelAs("ada", "n-000000"), "n-000000"));
  EXPECT_EQ(unlike(WatchAs("ada", as_bob_), as_bob_), unlike(WatchAs("ada", "n-000000"), "n-000000"));
}

TEST_F(GuardedJobServiceTest, AJobIsDescribedWithWhoSubmittedIt) {
  v1::DescribeResponse described;
  ASSERT_TRUE(DescribeAs("eve", as_bob_, &described).ok());
  EXPECT_EQ(described.owner(), "bob");
  ASSERT_TRUE(DescribeAs("ada", as_ada_, &described).ok());
  EXPECT_EQ(described.owner(), "ada");
}

TEST_F(GuardedJobServiceTest, ARequestIdOfSomebodyElseIsNoWayToTheirJob) {
  EXPECT_EQ(SubmitAs("ada", "of-bob").status().code(), kDenied);
  EXPECT_TRUE(SubmitAs("bob", "of-bob")->existed());
}

TEST_F(GuardedJobServiceTest, ReadersSeeAllAndChangeNothing) {
  EXPECT_TRUE(DescribeAs("eve", as_bob_).ok());
  EXPECT_TRUE(WatchAs("eve", as_bob_).ok());
  EXPECT_THAT(ListAs("eve"), ElementsAre(as_bob_, as_ada_));
  EXPECT_EQ(CancelAs("eve", as_bob_).code(), kDenied);
  EXPECT_EQ(SubmitAs("eve", "r").status().code(), kDenied);
  EXPECT_EQ(DescribeAs("eve", "n-000000").code(), absl::StatusCode::kNotFound);
}

TEST_F(GuardedJobServiceTest, TheJobOfSomebodyElseIsNeitherStoppedNorForkedNorRead) {
  for (const char* who : {"bob", "eve"}) {
    const auto with = [&](auto request, auto response, auto method) {
      request.set_job_id(as_ada_);
      return As(who, [&](grpc::ClientContext* context) { return (jobs_.get()->*method)(context, request, &response); });
    };
    EXPECT_EQ(with(v1::PauseRequest(), v1::PauseResponse(), &v1::JobService::Stub::Pause).code(), kDenied);
    EXPECT_EQ(with(v1::KillRequest(), v1::KillResponse(), &v1::JobService::Stub::Kill).code(), kDenied);
    EXPECT_EQ(with(v1::DeleteRequest(), v1::DeleteResponse(), &v1::JobService::Stub::Delete).code(), kDenied);
    v1::ForkRequest fork;
    fork.set_request_id("fork");
    EXPECT_EQ(with(fork, v1::ForkResponse(), &v1::JobService::Stub::Fork).code(), kDenied) << who;
    const absl::Status files =
        with(v1::ListArtifactsRequest(), v1::ListArtifactsResponse(), &v1::JobService::Stub::ListArtifacts);
    v1::TraceRequest trace;
    trace.add_ordinals(0);
    const absl::Status groups = with(trace, v1::TraceResponse(), &v1::JobService::Stub::Trace);
    v1::CompareRequest compare;
    compare.add_arms(absl::StrCat("mine=", as_bob_));
    compare.add_arms(absl::StrCat(as_bob_, ",", as_ada_));
    v1::CompareResponse compared;
    const absl::Status arms =
        As(who, [&](grpc::ClientContext* context) { return jobs_->Compare(context, compare, &compared); });
    // Readers see the jobs of others: what lacks then is a run folder, groups, or outcomes.
    EXPECT_EQ(files.code(), std::string(who) == "eve" ? absl::StatusCode::kNotFound : kDenied);
    EXPECT_EQ(groups.code(), std::string(who) == "eve" ? absl::StatusCode::kInvalidArgument : kDenied);
    EXPECT_EQ(arms.code(), std::string(who) == "eve" ? absl::StatusCode::kFailedPrecondition : kDenied);
  }
  EXPECT_EQ(Describe(as_ada_).status().code(), kUnauthenticated);
  EXPECT_TRUE(DescribeAs("ada", as_ada_).ok());
}

TEST_F(GuardedJobServiceTest, AdminsDoEverything) {
  EXPECT_THAT(ListAs("root", 1), ElementsAre(as_bob_));
  EXPECT_TRUE(CancelAs("root", as_ada_).ok());
  EXPECT_TRUE(SubmitAs("root", "of-root").ok());
  EXPECT_THAT(ListAs("bob", 1), ElementsAre(as_bob_)) << "the limit counts the own ones";
}

TEST_F(GuardedJobServiceTest, JobsOfBeforeTheTokensBelongToNobody) {
  server_.reset();
  const std::string tokens = std::exchange(options_.tokens_path, "");
  StartServer();
  const std::string before = SubmitJob("of-before");
  server_.reset();
  options_.tokens_path = tokens;
  StartServer();
  EXPECT_EQ(DescribeAs("ada", before).code(), kDenied);
  EXPECT_EQ(SubmitAs("ada", "of-before").status().code(), kDenied) << "nor can they be taken by their request id";
  v1::DescribeResponse described;
  EXPECT_TRUE(DescribeAs("eve", before, &described).ok());
  EXPECT_EQ(described.owner(), "");
  EXPECT_TRUE(DescribeAs("ada", as_ada_).ok()) << "owners outlive a restart";
}

TEST_F(GuardedJobServiceTest, WhatChangesSomethingAndWhatIsRefusedIsInTheAuditLog) {
  const size_t before = Audited().size();
  EXPECT_EQ(before, 2u) << "two submissions";
  EXPECT_TRUE(CancelAs("root", as_ada_).ok());
  EXPECT_TRUE(DescribeAs("ada", as_ada_).ok());  // changes nothing
  EXPECT_EQ(CancelAs("ada", as_bob_).code(), kDenied);
  EXPECT_EQ(DescribeAs("", as_bob_).code(), kUnauthenticated);
  EXPECT_EQ(CancelAs("root", "n-000000").code(), absl::StatusCode::kNotFound);
  const auto lines = Audited();
  ASSERT_EQ(lines.size(), before + 4);
  EXPECT_EQ(lines[0]["who"], "ada");
  EXPECT_EQ(lines[0]["call"], "/sluice.v1.JobService/Submit");
  EXPECT_EQ(lines[0]["job"], as_ada_);
  EXPECT_EQ(lines[0]["by"], "token");
  EXPECT_THAT(lines[0]["from"].get<std::string>(), HasSubstr("127.0.0.1"));
  std::vector<std::string> told;
  for (size_t i = before; i < lines.size(); ++i) {
    told.push_back(absl::StrCat(lines[i]["who"].get<std::string>(), " ", lines[i]["verdict"].get<std::string>(), " ",
                                lines[i]["code"].get<std::string>()));
  }
  EXPECT_THAT(told, ElementsAre("root allowed OK", "ada refused PERMISSION_DENIED", " refused UNAUTHENTICATED",
                                "root failed NOT_FOUND"));
}

TEST_F(GuardedJobServiceTest, AHostThatFloodsIsToldWhenToComeAgain) {
  JobService jobs(server_->coordinator());
  GuardedJobService guard(&jobs, server_->coordinator()->store(), nullptr, nullptr, {.per_second = 0.1, .burst = 2});
  const auto server = RpcServer::Start("127.0.0.1:0", {&guard}).value();
  const auto stub = v1::JobService::NewStub(MakeChannel(server->address()));
  for (int call = 0; call < 3; ++call) {
    grpc::ClientContext context;
    SetDeadline(&context, absl::Seconds(30));
    v1::ListResponse response;
    const absl::Status status = FromGrpc(stub->List(&context, v1::ListRequest(), &response));
    const bool told = context.GetServerTrailingMetadata().count("retry_after_ms") == 1;
    EXPECT_EQ(status.code(), call < 2 ? absl::StatusCode::kOk : absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(told, call == 2);
  }
  jobs.Stop();
}

TEST_F(GuardedJobServiceTest, TokensDoNotTravelInTheClear) {
  server_.reset();
  options_.address = "0.0.0.0:0";
  options_.security.insecure = true;
  const auto started = CoordinatorServer::Start(options_);
  EXPECT_EQ(started.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(started.status().message()), HasSubstr("--tokens"));
}

}  // namespace
}  // namespace sluice::learner
