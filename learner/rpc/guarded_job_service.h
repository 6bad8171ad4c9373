// The job API as callers from outside meet it: who they are, whether they may, a line in the audit log, then
// JobService.
//
// A caller is known by a token ("authorization: Bearer ...", common/security/token.h) or by a certificate of role
// client. Without a file of tokens everybody who reaches the service may do everything, as the access table has let
// them through (common/rpc/access.h), or there is no TLS. What each method needs is in common/security/method_rules.h;
// a method that has no wrapper here is answered UNIMPLEMENTED, so that none can be forgotten.
#ifndef SLUICE_LEARNER_RPC_GUARDED_JOB_SERVICE_H_
#define SLUICE_LEARNER_RPC_GUARDED_JOB_SERVICE_H_

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "common/security/audit_log.h"
#include "common/security/rate_limiter.h"
#include "common/security/token.h"
#include "common/time/clock.h"
#include "learner/rpc/job_service.h"

namespace sluice::learner {

// Who makes a call.
struct Caller {
  std::string name;  // empty: nobody said who
  std::string by;    // "token", "certificate", "nothing"
  std::string from;  // the peer's address
  Scopes scopes;
};

// Thread-safe. All that is passed in outlives it.
class GuardedJobService final : public v1::JobService::WithCallbackMethod_Watch<v1::JobService::Service> {
 public:
  // tokens: null: none are asked for. audit: null: no log. A host that calls more often than `rate` allows is answered
  // RESOURCE_EXHAUSTED, with "retry_after_ms" in the trailing metadata.
  GuardedJobService(JobService* jobs, JobStore* store, TokenFile* tokens, AuditLog* audit, RateLimiterOptions rate = {})
      : jobs_(jobs), store_(store), tokens_(tokens), audit_(audit), limiter_(rate, MonotonicClock()) {}

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

  // The same for a method of DataService, such as "Put": whether its caller may. Refusals are logged, and so is what
  // was admitted and changes something for others.
  absl::Status AdmitData(grpc::ServerContextBase* context, absl::string_view method);

 private:
  // A request id belongs to whom claims it first: noted before its job is there, so that none ever lacks its owner.
  absl::Status Claim(const Caller& caller, const std::string& request_id);
  absl::StatusOr<Caller> Identify(const grpc::ServerContextBase& context) const;
  // Whether the caller of `method` may call it, for the job `job_id` where it is about one. Refusals are logged.
  absl::StatusOr<Caller> Admit(grpc::ServerContextBase* context, absl::string_view method, const std::string& job_id);
  absl::Status Check(const Caller& caller, absl::string_view method, const std::string& job_id);
  bool MaySee(const Caller& caller, const std::string& job_id);
  // Admits, calls, and logs what came of it if the method changes something.
  grpc::Status Change(grpc::ServerContextBase* context, absl::string_view method, const std::string& job_id,
                      const std::function<grpc::Status()>& call);
  void Log(const Caller& caller, absl::string_view method, const std::string& job_id, const absl::Status& outcome);

  JobService* const jobs_;
  JobStore* const store_;
  TokenFile* const tokens_;
  AuditLog* const audit_;
  RateLimiter limiter_;
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RPC_GUARDED_JOB_SERVICE_H_
