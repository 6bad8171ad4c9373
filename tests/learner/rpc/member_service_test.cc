#include "learner/rpc/member_service.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "absl/strings/str_split.h"
#include "tests/learner/rpc/coordinator_fixture.h"

namespace sluice::learner {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class MemberServiceTest : public CoordinatorFixture {
 protected:
  void SetUp() override {
    CoordinatorFixture::SetUp();
    server_.reset();
    options_.audit_path = JoinPath(folder_, "audit.jsonl");
    StartServer();
    stub_ = v1::MemberService::NewStub(MakeChannel(server_->address()));
    job_ = SubmitJob();
    submitted_ = Lines().size();
  }

  template <typename Response, typename Request, typename Method>
  absl::Status Call(Method method, const Request& request, Response* response) {
    grpc::ClientContext context;
    SetDeadline(&context, absl::Seconds(30));
    return FromGrpc((stub_.get()->*method)(&context, request, response));
  }
  absl::Status Join(const std::string& id, const std::string& address = "m:7090") {
    v1::JoinRequest request;
    request.set_member_id(id);
    request.set_address(address);
    v1::JoinResponse response;
    return Call(&v1::MemberService::Stub::Join, request, &response);
  }
  // The epoch in which the member has the job; 0: it has none.
  uint64_t Beat(const std::string& id) {
    v1::MemberHeartbeat request;
    request.set_member_id(id);
    v1::View response;
    EXPECT_TRUE(Call(&v1::MemberService::Stub::Heartbeat, request, &response).ok());
    return response.has_assignment() ? response.epoch() : 0;
  }
  absl::Status Finish(uint64_t epoch, v1::JobState state = v1::JOB_STATE_SUCCEEDED) {
    v1::FinishRequest request;
    request.set_job_id(job_);
    request.set_epoch(epoch);
    request.set_state(state);
    v1::FinishResponse response;
    return Call(&v1::MemberService::Stub::Finish, request, &response);
  }
  // One step's calls.
  std::vector<absl::Status> Step(uint64_t epoch) {
    v1::ReserveVersionRequest version;
    version.set_job_id(job_);
    version.set_epoch(epoch);
    v1::ReserveVersionResponse reserved;
    v1::ReserveOrdinalsRequest ordinals;
    ordinals.set_job_id(job_);
    ordinals.set_epoch(epoch);
    ordinals.set_step(1);
    ordinals.set_count(8);
    v1::ReserveOrdinalsResponse issued;
    v1::JobReport report;
    report.set_job_id(job_);
    report.set_epoch(epoch);
    report.set_report_id(absl::StrCat("step of epoch ", epoch));
    v1::JobReportResponse answer;
    return {Call(&v1::MemberService::Stub::ReserveVersion, version, &reserved),
            Call(&v1::MemberService::Stub::ReserveOrdinals, ordinals, &issued),
            Call(&v1::MemberService::Stub::Report, report, &answer)};
  }

  std::vector<nlohmann::json> Lines() {
    std::vector<nlohmann::json> lines;
    const std::string text = ReadFile(options_.audit_path).value();
    for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
      lines.push_back(nlohmann::json::parse(line.begin(), line.end()));
    }
    return lines;
  }
  // "Join allowed OK" of each line since the submission.
  std::vector<std::string> Told() {
    std::vector<std::string> told;
    const auto lines = Lines();
    for (size_t i = submitted_; i < lines.size(); ++i) {
      const std::string call = lines[i]["call"];
      EXPECT_THAT(call, HasSubstr("/sluice.v1.MemberService/"));
      told.push_back(absl::StrCat(call.substr(call.rfind('/') + 1), " ", lines[i]["verdict"].get<std::string>(), " ",
                                  lines[i]["code"].get<std::string>()));
    }
    return told;
  }

  std::unique_ptr<v1::MemberService::Stub> stub_;
  std::string job_;
  size_t submitted_ = 0;
};

TEST_F(MemberServiceTest, WhoJoinsLeavesAndEndsAJobIsInTheAuditLog) {
  ASSERT_TRUE(Join("5f0c").ok());
  const uint64_t epoch = Beat("5f0c");
  ASSERT_NE(epoch, 0u);
  ASSERT_TRUE(Finish(epoch).ok());
  v1::LeaveRequest leave;
  leave.set_member_id("5f0c");
  v1::LeaveResponse left;
  ASSERT_TRUE(Call(&v1::MemberService::Stub::Leave, leave, &left).ok());

  EXPECT_THAT(Told(), ElementsAre("Join allowed OK", "Finish allowed OK", "Leave allowed OK"));
  const auto lines = Lines();
  const auto& join = lines[submitted_];
  EXPECT_EQ(join["member"], "5f0c");
  EXPECT_EQ(join["job"], "");
  EXPECT_EQ(join["who"], "") << "there is no TLS here, so nobody says who";
  EXPECT_EQ(join["by"], "nothing");
  EXPECT_THAT(join["from"].get<std::string>(), HasSubstr("127.0.0.1"));
  EXPECT_EQ(lines[submitted_ + 1]["job"], job_);
  EXPECT_EQ(lines[submitted_ + 2]["member"], "5f0c");
}

TEST_F(MemberServiceTest, WhatIsNotDoneIsThereWithItsReason) {
  EXPECT_EQ(Join("").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Join("m", std::string(300, 'a')).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Finish(1).code(), absl::StatusCode::kAborted) << "the job waits for its group";
  EXPECT_EQ(Finish(1, v1::JOB_STATE_RUNNING).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Told(), ElementsAre("Join failed INVALID_ARGUMENT", "Join failed INVALID_ARGUMENT",
                                  "Finish failed ABORTED", "Finish failed INVALID_ARGUMENT"));
  EXPECT_THAT(Lines()[submitted_ + 2]["reason"].get<std::string>(), HasSubstr("does not run; it is queued"));
}

// A step makes several calls: all of them would push what people did out of a log of bounded size.
TEST_F(MemberServiceTest, OfTheCallsOfAStepOnlyThoseThatAreRefusedAreThere) {
  ASSERT_TRUE(Join("m").ok());
  const uint64_t epoch = Beat("m");
  const size_t joined = Told().size();
  for (const absl::Status& done : Step(epoch)) ASSERT_TRUE(done.ok()) << done;
  EXPECT_EQ(Told().size(), joined);
  // A rank of an epoch that is over: the fence holds, and says so.
  for (const absl::Status& refused : Step(epoch - 1)) EXPECT_EQ(refused.code(), absl::StatusCode::kAborted);
  const std::vector<std::string> told = Told();
  EXPECT_THAT(std::vector<std::string>(told.begin() + static_cast<ptrdiff_t>(joined), told.end()),
              ElementsAre("ReserveVersion failed ABORTED", "ReserveOrdinals failed ABORTED", "Report failed ABORTED"));
  EXPECT_EQ(Lines().back()["job"], job_);
}

TEST_F(MemberServiceTest, WithoutAnAuditLogTheCallsGoOn) {
  server_.reset();
  options_.audit_path.clear();
  StartServer();
  EXPECT_TRUE(Join("m").ok());
}

}  // namespace
}  // namespace sluice::learner
