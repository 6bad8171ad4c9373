// Coordinator and ranks over gRPC: membership, rendezvous store, reservations, reports. Translation only.
#ifndef SLUICE_LEARNER_RPC_MEMBER_SERVICE_H_
#define SLUICE_LEARNER_RPC_MEMBER_SERVICE_H_

#include "learner/coordinator/coordinator.h"
#include "sluice/v1/member.grpc.pb.h"

namespace sluice::learner {

// Thread-safe. The coordinator outlives it. A synchronous service: ranks are few, and only StoreGet waits.
class MemberService final : public v1::MemberService::Service {
 public:
  explicit MemberService(Coordinator* coordinator) : coordinator_(coordinator) {}

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
  Coordinator* const coordinator_;
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RPC_MEMBER_SERVICE_H_
