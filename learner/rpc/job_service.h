// The job API over gRPC: jobs from the coordinator, watch from the job store, files from the run folders.
//
// Watch streams are fed by one thread of this service: it reads the store, and a stream takes a few dozen events at
// a time, so a slow reader costs neither memory nor anybody else's time. A reader that takes nothing for a while is
// sent away and resumes with its last sequence.
#ifndef SLUICE_LEARNER_RPC_JOB_SERVICE_H_
#define SLUICE_LEARNER_RPC_JOB_SERVICE_H_

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "common/rpc/credentials.h"
#include "common/sync/mutex.h"
#include "common/sync/thread.h"
#include "learner/coordinator/coordinator.h"
#include "learner/data/data_store.h"
#include "sluice/v1/job.grpc.pb.h"

namespace sluice::learner {

struct JobServiceOptions {
  int max_watchers = 256;
  // A stream that accepts no event for this long ends with Unavailable.
  absl::Duration watcher_patience = absl::Minutes(1);
  std::string runs_folder = "runs";
  const DataStore* data = nullptr;  // pushed data, outlives the service; null: none are taken
  std::string reward_address;       // asked whether it could serve a job; empty: not
  std::shared_ptr<const Credentials> credentials = Credentials::Plaintext();  // for that
  int max_queued = 1000;                                                      // of the store
};

// Thread-safe. The coordinator outlives it; it must be stopped before its server shuts down.
class JobService final : public v1::JobService::WithCallbackMethod_Watch<v1::JobService::Service> {
 public:
  explicit JobService(Coordinator* coordinator, JobServiceOptions options = {});
  ~JobService() override;

  grpc::Status Validate(grpc::ServerContext* context, const v1::ValidateRequest* request,
                        v1::ValidateResponse* response) override;
  grpc::Status Submit(grpc::ServerContext* context, const v1::SubmitRequest* request,
                      v1::SubmitResponse* response) override;
  grpc::Status List(grpc::ServerContext* context, const v1::ListRequest* request, v1::ListResponse* response) override;
  grpc::Status Describe(grpc::ServerContext* context, const v1::DescribeRequest* request,
                        v1::DescribeResponse* response) override;
  grpc::Status Cancel(grpc::ServerContext* context, const v1::CancelRequest* request,
                      v1::CancelResponse* response) override;
  grpc::Status Resume(grpc::ServerContext* context, const v1::ResumeRequest* request,
                      v1::ResumeResponse* response) override;
  grpc::Status Pause(grpc::ServerContext* context, const v1::PauseRequest* request,
                     v1::PauseResponse* response) override;
  grpc::Status Kill(grpc::ServerContext* context, const v1::KillRequest* request, v1::KillResponse* response) override;
  grpc::Status Delete(grpc::ServerContext* context, const v1::DeleteRequest* request,
                      v1::DeleteResponse* response) override;
  grpc::Status Fork(grpc::ServerContext* context, const v1::ForkRequest* request, v1::ForkResponse* response) override;
  grpc::Status Plan(grpc::ServerContext* context, const v1::PlanRequest* request, v1::PlanResponse* response) override;
  grpc::Status ServerInfo(grpc::ServerContext* context, const v1::ServerInfoRequest* request,
                          v1::ServerInfoResponse* response) override;
  grpc::Status ListArtifacts(grpc::ServerContext* context, const v1::ListArtifactsRequest* request,
                             v1::ListArtifactsResponse* response) override;
  grpc::Status ReadArtifact(grpc::ServerContext* context, const v1::ReadArtifactRequest* request,
                            v1::ReadArtifactResponse* response) override;
  grpc::Status Trace(grpc::ServerContext* context, const v1::TraceRequest* request,
                     v1::TraceResponse* response) override;
  grpc::Status Compare(grpc::ServerContext* context, const v1::CompareRequest* request,
                       v1::CompareResponse* response) override;
  grpc::ServerWriteReactor<v1::JobEvent>* Watch(grpc::CallbackServerContext* context,
                                                const v1::WatchRequest* request) override;

  // Feeds the watchers of this job soon. From any thread.
  void Wake(const std::string& job_id);
  // Ends every stream with Unavailable (resume elsewhere, or later) and the feeding thread. Idempotent.
  void Stop();

 private:
  class Watcher;

  absl::Status DeleteJob(const v1::DeleteRequest& request, v1::DeleteResponse* response);
  absl::Status ForkJob(const v1::ForkRequest& request, v1::ForkResponse* response);
  // Removes a checkpoint's copy that no job began with any more.
  absl::Status DropForkCopy(const std::string& copy);
  void FeedLoop();
  // Sends what there is for one watcher, up to its queue's bound.
  void Feed(Watcher* watcher);
  void Forget(const Watcher* watcher);

  Coordinator* const coordinator_;
  const JobServiceOptions options_;
  Mutex mutex_;
  CondVar changed_;
  std::map<const Watcher*, std::shared_ptr<Watcher>> watchers_ ABSL_GUARDED_BY(mutex_);
  std::set<std::string> dirty_ ABSL_GUARDED_BY(mutex_);  // jobs with something new, or with a stream that has room
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  Thread feeder_;
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RPC_JOB_SERVICE_H_
