// RolloutService of rollout.proto over RolloutHub: one reactor a stream, which only moves messages.
#ifndef SLUICE_LEARNER_RPC_ROLLOUT_SERVICE_H_
#define SLUICE_LEARNER_RPC_ROLLOUT_SERVICE_H_

#include "common/job_lines/job_lines.h"
#include "common/sync/notification.h"
#include "common/sync/thread.h"
#include "learner/ledger/rollout_hub.h"
#include "sluice/v1/rollout.grpc.pb.h"

namespace sluice::learner {

// Also gives the hub its tick, once a second. Before the server goes, end the streams with
// RolloutHub::DisconnectActors. Thread-safe.
class GrpcRolloutService : public v1::RolloutService::CallbackService {
 public:
  // Both must outlive the service, and the server that serves it. `lines` gets what actors say about the job; may be
  // null.
  explicit GrpcRolloutService(RolloutHub* hub, JobLines* lines = nullptr);
  ~GrpcRolloutService() override;

  grpc::ServerBidiReactor<v1::ActorMessage, v1::RankMessage>* Work(grpc::CallbackServerContext* context) override;

 private:
  RolloutHub* const hub_;
  JobLines* const lines_;
  Notification stopping_;
  Thread ticker_;
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RPC_ROLLOUT_SERVICE_H_
