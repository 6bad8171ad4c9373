#include "learner/rpc/member_service.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/rpc/access.h"
#include "common/rpc/status.h"
#include "learner/rpc/job_messages.h"
#include "learner/rpc/write_audit.h"

namespace sluice::learner {
namespace {

constexpr uint32_t kMaxStoreWaitMs = 10000;
constexpr size_t kMaxAddressBytes = 256;

absl::Status CheckText(absl::string_view what, absl::string_view text) {
  if (text.size() <= kMaxAddressBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(what, ": want at most ", kMaxAddressBytes, " bytes, got ", text.size()));
}

}  // namespace

grpc::Status MemberService::Logged(const grpc::ServerContext& context, absl::string_view method,
                                   const std::string& job_id, const std::string& member_id,
                                   const absl::Status& outcome) {
  const std::string name = IdentifyPeer(*context.auth_context()).name;
  WriteAudit(audit_,
             {name, name.empty() ? "nothing" : "certificate", context.peer(),
              absl::StrCat("/", v1::MemberService::service_full_name(), "/", method), job_id, outcome, member_id});
  return ToGrpc(outcome);
}

grpc::Status MemberService::Join(grpc::ServerContext* context, const v1::JoinRequest* request,
                                 v1::JoinResponse* response) {
  absl::Status status = CheckText("address", request->address());
  status.Update(CheckText("host", request->host()));
  status.Update(CheckText("version", request->version()));
  if (status.ok()) {
    status = coordinator_->Join(request->member_id(), request->address(), request->host(), request->version());
  }
  response->set_heartbeat_interval_s(absl::ToDoubleSeconds(coordinator_->options().heartbeat_interval));
  response->set_lease_s(absl::ToDoubleSeconds(coordinator_->options().lease));
  return Logged(*context, "Join", "", request->member_id(), status);
}

grpc::Status MemberService::Heartbeat(grpc::ServerContext*, const v1::MemberHeartbeat* request, v1::View* response) {
  sluice::learner::Heartbeat heartbeat;
  heartbeat.member_id = request->member_id();
  heartbeat.phase = request->phase().substr(0, kMaxAddressBytes);
  heartbeat.actors = request->actors();
  heartbeat.waiting_blocks = request->waiting_blocks();
  heartbeat.step = request->step();
  heartbeat.leaving = request->leaving();
  heartbeat.balance = FromMessage(request->ledger());
  const absl::StatusOr<GroupView> view = coordinator_->Beat(heartbeat);
  if (!view.ok()) return ToGrpc(view.status());
  response->set_epoch(view->epoch);
  response->set_rank(view->rank);
  response->set_world_size(view->world_size);
  response->set_drain(view->drain);
  response->set_release_actor(view->release_actor);
  if (view->job == nullptr) return grpc::Status::OK;
  v1::Assignment* assignment = response->mutable_assignment();
  assignment->set_job_id(view->job->id);
  assignment->set_run_folder(view->job->run_folder);
  assignment->set_cancel_requested(view->wish == JobWish::kCancel);
  assignment->set_pause_requested(view->wish == JobWish::kPause);
  if (request->job_id() == view->job->id) return grpc::Status::OK;  // it has the spec
  assignment->set_spec_yaml(view->job->spec_yaml);
  if (!assignment->mutable_spec()->ParseFromString(view->job->spec)) {
    return ToGrpc(absl::DataLossError(absl::StrCat("the spec of job ", view->job->id, " cannot be read")));
  }
  return grpc::Status::OK;
}

grpc::Status MemberService::Leave(grpc::ServerContext* context, const v1::LeaveRequest* request, v1::LeaveResponse*) {
  coordinator_->Leave(request->member_id(), request->reason().substr(0, kMaxAddressBytes));
  return Logged(*context, "Leave", "", request->member_id(), absl::OkStatus());
}

grpc::Status MemberService::StoreSet(grpc::ServerContext*, const v1::StoreSetRequest* request, v1::StoreSetResponse*) {
  return ToGrpc(coordinator_->kv()->Set(request->key(), request->value()));
}

grpc::Status MemberService::StoreGet(grpc::ServerContext*, const v1::StoreGetRequest* request,
                                     v1::StoreGetResponse* response) {
  const absl::Duration wait = absl::Milliseconds(std::min(request->wait_ms(), kMaxStoreWaitMs));
  absl::StatusOr<std::string> value = coordinator_->kv()->Get(request->key(), wait);
  if (!value.ok()) return ToGrpc(value.status());
  response->set_value(*std::move(value));
  return grpc::Status::OK;
}

grpc::Status MemberService::StoreAdd(grpc::ServerContext*, const v1::StoreAddRequest* request,
                                     v1::StoreAddResponse* response) {
  const absl::StatusOr<int64_t> value = coordinator_->kv()->Add(request->key(), request->amount());
  if (!value.ok()) return ToGrpc(value.status());
  response->set_value(*value);
  return grpc::Status::OK;
}

grpc::Status MemberService::ReserveVersion(grpc::ServerContext* context, const v1::ReserveVersionRequest* request,
                                           v1::ReserveVersionResponse* response) {
  const absl::StatusOr<uint64_t> version =
      coordinator_->ReserveVersion(request->job_id(), request->epoch(), request->after());
  if (!version.ok()) return Logged(*context, "ReserveVersion", request->job_id(), "", version.status());
  response->set_policy_version(*version);
  return grpc::Status::OK;
}

grpc::Status MemberService::ReserveOrdinals(grpc::ServerContext* context, const v1::ReserveOrdinalsRequest* request,
                                            v1::ReserveOrdinalsResponse*) {
  const absl::Status status = coordinator_->ReserveOrdinals(request->job_id(), request->epoch(), request->step(),
                                                            request->first(), request->count());
  return status.ok() ? grpc::Status::OK : Logged(*context, "ReserveOrdinals", request->job_id(), "", status);
}

grpc::Status MemberService::Report(grpc::ServerContext* context, const v1::JobReport* request,
                                   v1::JobReportResponse* response) {
  const absl::StatusOr<JobReport> report = FromMessage(*request);
  if (!report.ok()) return Logged(*context, "Report", request->job_id(), "", report.status());
  const absl::StatusOr<bool> cancel_requested = coordinator_->Report(request->job_id(), *report);
  if (!cancel_requested.ok()) return Logged(*context, "Report", request->job_id(), "", cancel_requested.status());
  response->set_cancel_requested(*cancel_requested);
  return grpc::Status::OK;
}

grpc::Status MemberService::Finish(grpc::ServerContext* context, const v1::FinishRequest* request,
                                   v1::FinishResponse*) {
  const absl::StatusOr<JobInput> outcome = OutcomeFromMessage(request->state());
  absl::Status status = outcome.status();
  if (status.ok()) {
    status = coordinator_->Finish(request->job_id(), request->epoch(), *outcome, request->message().substr(0, 4096),
                                  request->exit_code());
  }
  return Logged(*context, "Finish", request->job_id(), "", status);
}

grpc::Status MemberService::AttachActor(grpc::ServerContext*, const v1::AttachActorRequest* request,
                                        v1::AttachActorResponse* response) {
  const absl::StatusOr<std::string> address = coordinator_->AttachActor(
      request->actor_id(), std::vector<std::string>(request->avoid().begin(), request->avoid().end()));
  if (!address.ok()) return ToGrpc(address.status());
  response->set_address(*address);
  return grpc::Status::OK;
}

}  // namespace sluice::learner
