// A coordinator on a port of its own with its store in a temporary folder, and clients of both services.
#ifndef SLUICE_TESTS_LEARNER_RPC_COORDINATOR_FIXTURE_H_
#define SLUICE_TESTS_LEARNER_RPC_COORDINATOR_FIXTURE_H_

#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/file/file.h"
#include "common/rpc/channel.h"
#include "common/rpc/status.h"
#include "common/spec/spec.h"
#include "learner/rpc/coordinator_server.h"
#include "learner/rpc/job_reporter.h"
#include "learner/rpc/member_client.h"
#include "sluice/v1/job.grpc.pb.h"

namespace sluice::learner {

class CoordinatorFixture : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = absl::StrCat(testing::TempDir(), "/coordinator_server_XXXXXX");
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
    options_.address = "127.0.0.1:0";
    options_.store_path = JoinPath(folder_, "jobs.db");
    options_.store.runs_folder = JoinPath(folder_, "runs");
    options_.coordinator.heartbeat_interval = absl::Milliseconds(20);
    options_.coordinator.lease = absl::Seconds(30);  // a loaded machine is no lost rank
    StartServer();
  }
  void TearDown() override {
    server_.reset();
    EXPECT_TRUE(RemoveAll(folder_).ok());
  }

  void StartServer() {
    auto server = CoordinatorServer::Start(options_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    options_.address = server_->address();  // the next start is at the same port
    jobs_ = v1::JobService::NewStub(MakeChannel(server_->address()));
  }

  std::unique_ptr<MemberClient> MakeMember(const std::string& id) {
    MemberClientOptions options;
    options.member_id = id;
    options.address = absl::StrCat(id, ":7090");
    options.retry.initial_backoff = absl::Milliseconds(10);
    options.retry.max_backoff = absl::Milliseconds(50);
    auto client = std::make_unique<MemberClient>(MakeChannel(server_->address()), options);
    client->Start();
    return client;
  }

  absl::StatusOr<v1::SubmitResponse> Submit(const std::string& request_id, const std::string& yaml) {
    v1::SubmitRequest request;
    request.set_request_id(request_id);
    const auto spec = ResolveSpec(yaml, "s.yaml");
    if (!spec.ok()) return spec.status();
    *request.mutable_spec() = spec->given;
    request.set_spec_yaml(yaml);
    return Submit(request);
  }
  absl::StatusOr<v1::SubmitResponse> Submit(const v1::SubmitRequest& request) {
    v1::SubmitResponse response;
    grpc::ClientContext context;
    SetDeadline(&context, absl::Seconds(30));
    const absl::Status status = FromGrpc(jobs_->Submit(&context, request, &response));
    if (!status.ok()) return status;
    return response;
  }
  absl::StatusOr<v1::ValidateResponse> Validate(const v1::ValidateRequest& request) {
    v1::ValidateResponse response;
    grpc::ClientContext context;
    SetDeadline(&context, absl::Seconds(30));
    const absl::Status status = FromGrpc(jobs_->Validate(&context, request, &response));
    if (!status.ok()) return status;
    return response;
  }
  std::string SubmitJob(const std::string& request_id = "r1") {
    return Submit(request_id, "kind: sft\nname: n\ndata: d\n").value().job_id();
  }

  absl::StatusOr<v1::DescribeResponse> Describe(const std::string& job_id) {
    v1::DescribeRequest request;
    request.set_job_id(job_id);
    v1::DescribeResponse response;
    grpc::ClientContext context;
    SetDeadline(&context, absl::Seconds(30));
    const absl::Status status = FromGrpc(jobs_->Describe(&context, request, &response));
    if (!status.ok()) return status;
    return response;
  }

  absl::Status Cancel(const std::string& job_id) {
    v1::CancelRequest request;
    request.set_job_id(job_id);
    v1::CancelResponse response;
    grpc::ClientContext context;
    SetDeadline(&context, absl::Seconds(30));
    return FromGrpc(jobs_->Cancel(&context, request, &response));
  }

  // Reads a Watch stream to its end.
  absl::Status Watch(const std::string& job_id, uint64_t after, std::vector<v1::JobEvent>* events) {
    v1::WatchRequest request;
    request.set_job_id(job_id);
    request.set_after_sequence(after);
    grpc::ClientContext context;
    SetDeadline(&context, absl::Seconds(60));
    const auto reader = jobs_->Watch(&context, request);
    v1::JobEvent event;
    while (reader->Read(&event)) events->push_back(event);
    return FromGrpc(reader->Finish());
  }

  // The view once it satisfies `done`, or the last one after a generous limit.
  template <typename Predicate>
  static RankView WaitFor(MemberClient* client, Predicate done) {
    RankView view = client->view();
    const absl::Time until = absl::Now() + absl::Seconds(60);
    while (!done(view) && absl::Now() < until) view = client->WaitForChange(view.generation, absl::Seconds(1));
    return view;
  }
  static RankView WaitForJob(MemberClient* client) {
    return WaitFor(client, [](const RankView& view) { return view.job != nullptr; });
  }

  std::string folder_;
  CoordinatorServerOptions options_;
  std::unique_ptr<CoordinatorServer> server_;
  std::unique_ptr<v1::JobService::Stub> jobs_;
};

}  // namespace sluice::learner

#endif  // SLUICE_TESTS_LEARNER_RPC_COORDINATOR_FIXTURE_H_
