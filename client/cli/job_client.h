// The coordinator's API as sluicectl uses it: calls with deadlines and retries, and a watch that outlives restarts of
// the coordinator.
#ifndef SLUICE_CLIENT_CLI_JOB_CLIENT_H_
#define SLUICE_CLIENT_CLI_JOB_CLIENT_H_

#include <grpcpp/channel.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/rpc/status.h"
#include "sluice/v1/data.grpc.pb.h"
#include "sluice/v1/job.grpc.pb.h"

namespace sluice::client {

struct JobClientOptions {
  std::string server = "127.0.0.1:7070";
  // Budget of one call, retries included.
  absl::Duration timeout = absl::Seconds(5);
  // A watch gives up after so long without any coordinator.
  absl::Duration watch_patience = absl::Minutes(10);
  // Says what is wrong with TLS if that is why nobody answers, and returns the status as it is otherwise. May be empty.
  std::function<absl::Status(const absl::Status&)> explain;
};

struct WatchOptions {
  uint64_t after = 0;
  bool until_now = false;
};

// Not thread-safe, except that a stop flag may be set from anywhere.
//
// Errors of calls are in words for people: Unavailable if nobody is there, DeadlineExceeded if somebody is and does not
// answer in time, FailedPrecondition if what answers is no coordinator or an older one; else the coordinator's own.
class JobClient {
 public:
  JobClient(std::shared_ptr<grpc::Channel> channel, JobClientOptions options);
  const JobClientOptions& options() const { return options_; }
  grpc::Channel* channel() { return channel_.get(); }

  absl::StatusOr<v1::SubmitResponse> Submit(const v1::SubmitRequest& request);
  absl::StatusOr<v1::ListResponse> List(int limit);
  absl::StatusOr<v1::DescribeResponse> Describe(const std::string& job_id);
  absl::Status Cancel(const std::string& job_id);
  absl::StatusOr<v1::ResumeResponse> Resume(const std::string& job_id);
  absl::Status Pause(const std::string& job_id);
  absl::StatusOr<v1::KillResponse> Kill(const std::string& job_id);
  absl::StatusOr<v1::DeleteResponse> Delete(const std::string& job_id, bool files);
  absl::StatusOr<v1::ForkResponse> Fork(const v1::ForkRequest& request);
  absl::StatusOr<v1::PlanResponse> Plan(const v1::PlanRequest& request);
  absl::StatusOr<v1::ServerInfoResponse> ServerInfo(bool check_storage);
  absl::StatusOr<v1::ListArtifactsResponse> ListArtifacts(const std::string& job_id);
  absl::StatusOr<v1::ReadArtifactResponse> ReadArtifact(const v1::ReadArtifactRequest& request);
  absl::StatusOr<v1::TraceResponse> Trace(const v1::TraceRequest& request);
  absl::StatusOr<v1::CompareResponse> Compare(const v1::CompareRequest& request);

  absl::StatusOr<v1::BeginPushResponse> BeginPush(const v1::BeginPushRequest& request);
  absl::StatusOr<v1::PutResponse> Put(const v1::PutRequest& request);
  absl::StatusOr<v1::CommitPushResponse> CommitPush(const std::string& digest);
  absl::StatusOr<v1::ListDataResponse> ListData();
  absl::StatusOr<v1::RemoveDataResponse> RemoveData(const std::string& digest);

  // The full id that `abbreviation` begins, or whose part after the last dash it begins. An exact id wins.
  // NotFound, or InvalidArgument with the candidates if there are several.
  absl::StatusOr<std::string> ResolveId(const std::string& abbreviation);

  // Called for each event, in order, none twice and none left out that the coordinator still has.
  using OnEvent = std::function<void(const v1::JobEvent&)>;
  // Called when contact is lost (with the error) and found again (with OK).
  using OnContact = std::function<void(const absl::Status&)>;
  // Returns when the job is terminal; Cancelled when `stop` became true.
  absl::Status Watch(const std::string& job_id, const WatchOptions& options, const std::atomic<bool>& stop,
                     const OnEvent& on_event, const OnContact& on_contact);

 private:
  // `patience`: how long the call may take, if not as the options say. `what` is the call's name: "pause jobs".
  absl::Status Call(const std::function<absl::Status(grpc::ClientContext*)>& call, const char* what,
                    absl::Duration patience);
  template <typename Stub, typename Request, typename Response>
  absl::StatusOr<Response> Unary(Stub* stub,
                                 grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                                 const Request& request, const char* what,
                                 absl::Duration patience = absl::ZeroDuration()) {
    Response response;
    const absl::Status status =
        Call([&](grpc::ClientContext* context) { return FromServer((stub->*method)(context, request, &response)); },
             what, patience);
    if (!status.ok()) return status;
    return response;
  }
  // What nobody there, or nobody in time, means here.
  absl::Status Explain(const absl::Status& status, const char* what, absl::Duration patience);
  // One stream. Returns its end; `sequence` is the last event's.
  absl::Status WatchOnce(const v1::WatchRequest& request, const std::atomic<bool>& stop, const OnEvent& on_event);

  const JobClientOptions options_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::JobService::Stub> stub_;
  const std::unique_ptr<v1::DataService::Stub> data_;
};

}  // namespace sluice::client

#endif  // SLUICE_CLIENT_CLI_JOB_CLIENT_H_
