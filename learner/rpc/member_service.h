// Coordinator and ranks over gRPC: membership, rendezvous store, reservations, reports. Translation only.
#ifndef SLUICE_LEARNER_RPC_MEMBER_SERVICE_H_
#define SLUICE_LEARNER_RPC_MEMBER_SERVICE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "common/security/audit_log.h"
#include "learner/coordinator/coordinator.h"
#include "sluice/v1/member.grpc.pb.h"

namespace sluice::learner {

// Thread-safe. The coordinator and the audit log outlive it. A synchronous service: ranks are few, and only StoreGet
// waits.
//
// In the audit log are each call that changes who is in the group or ends a job (Join, Leave, Finish), and of the calls
// that a job makes at every step (Report, ReserveVersion, ReserveOrdinals) those that were not done: a rank whose epoch
// is over, a job that does not run. All of them would push people's lines out of a log of bounded size.
class MemberService final : public v1::MemberService::Service {
 public:
  // audit: null: no log.
  MemberService(Coordinator* coordinator, AuditLog* audit) : coordinator_(coordinator), audit_(audit) {}

  grpc::Status Join(grpc::ServerContext*, const v1::JoinRequest*, v1::JoinResponse*) override;
  grpc::Status Heartbeat(grpc::ServerContext*, const v1::MemberHeartbeat*, v1::View*) override;
  grpc::Status Leave(grpc::ServerContext*, const v1::LeaveRequest*, v1::LeaveResponse*) override;
  grpc::Status StoreSet(grpc::ServerContext*, const v1::StoreSetRequest*, v1::StoreSetResponse*) override;
  grpc::Status StoreGet(grpc::ServerContext*, const v1::StoreGetRequest*, v1::StoreGetResponse*) override;
  grpc::Status StoreAdd(grpc::ServerContext*, const v1::StoreAddRequest*, v1::StoreAddResponse*) override;
  grpc::Status ReserveVersion(grpc::ServerContext*, const v1::ReserveVersionRequest*,
                              v1::ReserveVersionResponse*) override;
  grpc::Status ReserveOrdinals(grpc::ServerContext*, const v1::ReserveOrdinalsRequest*,
                               v1::ReserveOrdinalsResponse*) override;
  grpc::Status Report(grpc::ServerContext*, const v1::JobReport*, v1::JobReportResponse*) override;
  grpc::Status Finish(grpc::ServerContext*, const v1::FinishRequest*, v1::FinishResponse*) override;
  grpc::Status AttachActor(grpc::ServerContext*, const v1::AttachActorRequest*, v1::AttachActorResponse*) override;

 private:
  // Passes the outcome on, with a line in the audit log. `method` is one of MemberService's, such as "Join".
  grpc::Status Logged(const grpc::ServerContext& context, absl::string_view method, const std::string& job_id,
                      const std::string& member_id, const absl::Status& outcome);

  Coordinator* const coordinator_;
  AuditLog* const audit_;
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RPC_MEMBER_SERVICE_H_
