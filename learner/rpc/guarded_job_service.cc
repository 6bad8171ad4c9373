#include "learner/rpc/guarded_job_service.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/rpc/access.h"
#include "common/rpc/status.h"
#include "common/security/method_rules.h"
#include "common/status/status.h"
#include "learner/rpc/write_audit.h"
#include "sluice/v1/data.grpc.pb.h"

namespace sluice::learner {
namespace {

constexpr absl::string_view kBearer = "bearer ";
constexpr size_t kMaxRequestIdBytes = 128;  // what is longer, JobService refuses
constexpr int kDefaultListed = 100;
constexpr int kMaxListed = 1000;
constexpr Scopes kEverything = {.submit = true, .read = true, .admin = true};

// "/sluice.v1.JobService/Submit"; what is a path already stays as it is.
std::string PathOf(absl::string_view method) {
  if (absl::StartsWith(method, "/")) return std::string(method);
  return absl::StrCat("/", v1::JobService::service_full_name(), "/", method);
}

// A stream that ends as it begins.
class RefusedWatch : public grpc::ServerWriteReactor<v1::JobEvent> {
 public:
  explicit RefusedWatch(const absl::Status& status) { Finish(ToGrpc(status)); }
  void OnDone() override { delete this; }
};

}  // namespace

absl::StatusOr<Caller> GuardedJobService::Identify(const grpc::ServerContextBase& context) const {
  Caller caller;
  caller.by = "nothing";
  caller.from = context.peer();
  const PeerIdentity peer = IdentifyPeer(*context.auth_context());
  if (tokens_ != nullptr) {
    const auto& metadata = context.client_metadata();
    if (const auto found = metadata.find("authorization"); found != metadata.end()) {
      const absl::string_view value(found->second.data(), found->second.size());
      if (!absl::StartsWithIgnoreCase(value, kBearer)) {
        return absl::UnauthenticatedError("authorization: want 'Bearer TOKEN'");
      }
      SLUICE_ASSIGN_OR_RETURN(const TokenHolder holder, tokens_->Find(value.substr(kBearer.size())));
      caller.name = holder.name;
      caller.by = "token";
      caller.scopes = holder.scopes;
      return caller;
    }
  }
  if (peer.roles.Has(Role::kClient)) {
    caller.name = peer.name;
    caller.by = "certificate";
    caller.scopes = kEverything;
    return caller;
  }
  if (tokens_ != nullptr) {
    return absl::UnauthenticatedError(
        "this coordinator wants a token; name the file that holds yours with --token-file (SLUICE_TOKEN_FILE)");
  }
  caller.scopes = kEverything;
  return caller;
}

bool GuardedJobService::MaySee(const Caller& caller, const std::string& job_id) {
  if (caller.scopes.read || caller.scopes.admin) return true;
  const absl::StatusOr<std::string> owner = store_->Owner(job_id);
  return owner.ok() && !owner->empty() && *owner == caller.name;
}

absl::Status GuardedJobService::Check(const Caller& caller, absl::string_view method, const std::string& job_id) {
  const MethodRule* const rule = FindMethodRule(PathOf(method));
  SLUICE_CHECK(rule != nullptr, "a method of JobService is not in the table of methods");
  if (caller.scopes.admin) return absl::OkStatus();
  switch (rule->person) {
    case PersonNeeds::kAnyToken:
      return absl::OkStatus();
    case PersonNeeds::kSubmit:
      if (caller.scopes.submit) return absl::OkStatus();
      return absl::PermissionDeniedError(
          absl::StrCat("the token of ", caller.name, " lacks the scope submit; ask for one that has it"));
    case PersonNeeds::kSeeJob:
    case PersonNeeds::kChangeJob:
      break;
    case PersonNeeds::kCertificate:
      return absl::PermissionDeniedError(absl::StrCat(PathOf(method), " is not for tokens"));
    case PersonNeeds::kAdmin:
      return absl::PermissionDeniedError(
          absl::StrCat("the token of ", caller.name, " lacks the scope admin; ask for one that has it"));
  }
  const absl::StatusOr<std::string> owner = store_->Owner(job_id);
  const bool own = owner.ok() && !owner->empty() && *owner == caller.name;
  if (own || (rule->person == PersonNeeds::kSeeJob && caller.scopes.read)) return absl::OkStatus();
  // The same words for a job of somebody else and for none at all: who may not see it does not learn that it is there.
  return absl::PermissionDeniedError(absl::StrCat("job '", job_id.substr(0, 128), "' is not one that ", caller.name,
                                                  " has submitted; that needs the scope ",
                                                  rule->person == PersonNeeds::kSeeJob ? "read or admin" : "admin"));
}

absl::StatusOr<Caller> GuardedJobService::Admit(grpc::ServerContextBase* context, absl::string_view method,
                                                const std::string& job_id) {
  const std::string peer = context->peer();
  const absl::string_view host(peer.data(), std::min(peer.rfind(':'), peer.size()));
  if (const absl::Duration wait = limiter_.Take(host); wait > absl::ZeroDuration()) {
    const int64_t milliseconds = absl::ToInt64Milliseconds(absl::Ceil(wait, absl::Milliseconds(1)));
    context->AddTrailingMetadata("retry_after_ms", absl::StrCat(milliseconds));
    return absl::ResourceExhaustedError(
        absl::StrCat("too many calls from ", host, "; try again in ", milliseconds, " ms"));
  }
  absl::StatusOr<Caller> caller = Identify(*context);
  if (!caller.ok()) {
    const std::string shown = IdentifyPeer(*context->auth_context()).name;
    Log({shown, shown.empty() ? "nothing" : "certificate", peer, {}}, method, job_id, caller.status());
    return caller;
  }
  if (const absl::Status allowed = Check(*caller, method, job_id); !allowed.ok()) {
    Log(*caller, method, job_id, allowed);
    return allowed;
  }
  return caller;
}

grpc::Status GuardedJobService::Change(grpc::ServerContextBase* context, absl::string_view method,
                                       const std::string& job_id, const std::function<grpc::Status()>& call) {
  const absl::StatusOr<Caller> caller = Admit(context, method, job_id);
  if (!caller.ok()) return ToGrpc(caller.status());
  grpc::Status status = call();
  Log(*caller, method, job_id, FromGrpc(status));
  return status;
}

void GuardedJobService::Log(const Caller& caller, absl::string_view method, const std::string& job_id,
                            const absl::Status& outcome) {
  WriteAudit(audit_, {caller.name, caller.by, caller.from, PathOf(method), job_id, outcome});
}

grpc::Status GuardedJobService::Validate(grpc::ServerContext* context, const v1::ValidateRequest* request,
                                         v1::ValidateResponse* response) {
  const absl::StatusOr<Caller> caller = Admit(context, "Validate", "");
  return caller.ok() ? jobs_->Validate(context, request, response) : ToGrpc(caller.status());
}

absl::Status GuardedJobService::Claim(const Caller& caller, const std::string& request_id) {
  if (caller.name.empty() || request_id.empty() || request_id.size() > kMaxRequestIdBytes) return absl::OkStatus();
  SLUICE_ASSIGN_OR_RETURN(const std::string owner, store_->ClaimRequest(request_id, caller.name));
  if (owner == caller.name || caller.scopes.admin) return absl::OkStatus();
  return absl::PermissionDeniedError("this request id is somebody else's; choose a new one");
}

absl::Status GuardedJobService::AdmitData(grpc::ServerContextBase* context, absl::string_view method) {
  const std::string path = absl::StrCat("/", v1::DataService::service_full_name(), "/", method);
  const absl::StatusOr<Caller> caller = Admit(context, path, "");
  if (!caller.ok()) return caller.status();
  if (method == "Commit" || method == "Remove") Log(*caller, path, "", absl::OkStatus());
  return absl::OkStatus();
}

grpc::Status GuardedJobService::Submit(grpc::ServerContext* context, const v1::SubmitRequest* request,
                                       v1::SubmitResponse* response) {
  const absl::StatusOr<Caller> caller = Admit(context, "Submit", "");
  if (!caller.ok()) return ToGrpc(caller.status());
  absl::Status outcome = Claim(*caller, request->request_id());
  if (outcome.ok()) outcome = FromGrpc(jobs_->Submit(context, request, response));
  Log(*caller, "Submit", response->job_id(), outcome);
  return ToGrpc(outcome);
}

grpc::Status GuardedJobService::List(grpc::ServerContext* context, const v1::ListRequest* request,
                                     v1::ListResponse* response) {
  const absl::StatusOr<Caller> caller = Admit(context, "List", "");
  if (!caller.ok()) return ToGrpc(caller.status());
  if (caller->scopes.read || caller->scopes.admin) return jobs_->List(context, request, response);
  // The own ones among the latest.
  v1::ListRequest all = *request;
  if (request->limit() >= 0 && request->limit() <= kMaxListed) all.set_limit(kMaxListed);
  grpc::Status status = jobs_->List(context, &all, response);
  auto* const jobs = response->mutable_jobs();
  jobs->erase(std::remove_if(jobs->begin(), jobs->end(),
                             [&](const v1::JobSummary& job) { return !MaySee(*caller, job.job_id()); }),
              jobs->end());
  const int limit = request->limit() == 0 ? kDefaultListed : request->limit();
  if (jobs->size() > limit) jobs->DeleteSubrange(limit, jobs->size() - limit);
  return status;
}

grpc::Status GuardedJobService::Describe(grpc::ServerContext* context, const v1::DescribeRequest* request,
                                         v1::DescribeResponse* response) {
  const absl::StatusOr<Caller> caller = Admit(context, "Describe", request->job_id());
  return caller.ok() ? jobs_->Describe(context, request, response) : ToGrpc(caller.status());
}

grpc::Status GuardedJobService::Cancel(grpc::ServerContext* context, const v1::CancelRequest* request,
                                       v1::CancelResponse* response) {
  return Change(context, "Cancel", request->job_id(), [&] { return jobs_->Cancel(context, request, response); });
}

grpc::Status GuardedJobService::Resume(grpc::ServerContext* context, const v1::ResumeRequest* request,
                                       v1::ResumeResponse* response) {
  return Change(context, "Resume", request->job_id(), [&] { return jobs_->Resume(context, request, response); });
}

grpc::Status GuardedJobService::Pause(grpc::ServerContext* context, const v1::PauseRequest* request,
                                      v1::PauseResponse* response) {
  return Change(context, "Pause", request->job_id(), [&] { return jobs_->Pause(context, request, response); });
}

grpc::Status GuardedJobService::Kill(grpc::ServerContext* context, const v1::KillRequest* request,
                                     v1::KillResponse* response) {
  return Change(context, "Kill", request->job_id(), [&] { return jobs_->Kill(context, request, response); });
}

grpc::Status GuardedJobService::Delete(grpc::ServerContext* context, const v1::DeleteRequest* request,
                                       v1::DeleteResponse* response) {
  return Change(context, "Delete", request->job_id(), [&] { return jobs_->Delete(context, request, response); });
}

grpc::Status GuardedJobService::Plan(grpc::ServerContext* context, const v1::PlanRequest* request,
                                     v1::PlanResponse* response) {
  const absl::StatusOr<Caller> caller = Admit(context, "Plan", "");
  return caller.ok() ? jobs_->Plan(context, request, response) : ToGrpc(caller.status());
}

grpc::Status GuardedJobService::ServerInfo(grpc::ServerContext* context, const v1::ServerInfoRequest* request,
                                           v1::ServerInfoResponse* response) {
  const absl::StatusOr<Caller> caller = Admit(context, "ServerInfo", "");
  return caller.ok() ? jobs_->ServerInfo(context, request, response) : ToGrpc(caller.status());
}

grpc::Status GuardedJobService::ListArtifacts(grpc::ServerContext* context, const v1::ListArtifactsRequest* request,
                                              v1::ListArtifactsResponse* response) {
  const absl::StatusOr<Caller> caller = Admit(context, "ListArtifacts", request->job_id());
  return caller.ok() ? jobs_->ListArtifacts(context, request, response) : ToGrpc(caller.status());
}

grpc::Status GuardedJobService::ReadArtifact(grpc::ServerContext* context, const v1::ReadArtifactRequest* request,
                                             v1::ReadArtifactResponse* response) {
  const absl::StatusOr<Caller> caller = Admit(context, "ReadArtifact", request->job_id());
  return caller.ok() ? jobs_->ReadArtifact(context, request, response) : ToGrpc(caller.status());
}

grpc::Status GuardedJobService::Fork(grpc::ServerContext* context, const v1::ForkRequest* request,
                                     v1::ForkResponse* response) {
  const absl::StatusOr<Caller> caller = Admit(context, "Fork", "");
  if (!caller.ok()) return ToGrpc(caller.status());
  // Its checkpoint and its spec are the parent's: who forks a job may see it.
  absl::Status outcome = Check(*caller, "Describe", request->job_id());
  if (outcome.ok()) outcome = Claim(*caller, request->request_id());
  if (outcome.ok()) outcome = FromGrpc(jobs_->Fork(context, request, response));
  Log(*caller, "Fork", response->job_id(), outcome);
  return ToGrpc(outcome);
}

grpc::Status GuardedJobService::Trace(grpc::ServerContext* context, const v1::TraceRequest* request,
                                      v1::TraceResponse* response) {
  const absl::StatusOr<Caller> caller = Admit(context, "Trace", request->job_id());
  return caller.ok() ? jobs_->Trace(context, request, response) : ToGrpc(caller.status());
}

grpc::Status GuardedJobService::Compare(grpc::ServerContext* context, const v1::CompareRequest* request,
                                        v1::CompareResponse* response) {
  const absl::StatusOr<Caller> caller = Admit(context, "Compare", "");
  if (!caller.ok()) return ToGrpc(caller.status());
  for (const std::string& arm : request->arms()) {
    for (const absl::string_view job : absl::StrSplit(arm.substr(arm.find('=') + 1), ',', absl::SkipEmpty())) {
      const absl::Status seen = Check(*caller, "Describe", std::string(job));
      if (!seen.ok()) return ToGrpc(seen);
    }
  }
  return jobs_->Compare(context, request, response);
}

grpc::ServerWriteReactor<v1::JobEvent>* GuardedJobService::Watch(grpc::CallbackServerContext* context,
                                                                 const v1::WatchRequest* request) {
  const absl::StatusOr<Caller> caller = Admit(context, "Watch", request->job_id());
  if (!caller.ok()) return new RefusedWatch(caller.status());
  return jobs_->Watch(context, request);
}

}  // namespace sluice::learner
