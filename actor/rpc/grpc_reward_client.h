// RewardClient over RewardService of reward.proto.
#ifndef SLUICE_ACTOR_RPC_GRPC_REWARD_CLIENT_H_
#define SLUICE_ACTOR_RPC_GRPC_REWARD_CLIENT_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <memory>
#include <set>

#include "actor/rollout/reward_client.h"
#include "common/metrics/blocked.h"
#include "common/sync/mutex.h"
#include "common/time/clock.h"
#include "sluice/v1/reward.grpc.pb.h"

namespace sluice::actor {

// Thread-safe.
class GrpcRewardClient : public RewardClient {
 public:
  // `now` is the clock of the deadlines given to Score. `blocked`, if there is one, counts the time in Score; it
  // outlives this object.
  GrpcRewardClient(const std::shared_ptr<grpc::Channel>& channel, NowFunction now, Blocked* blocked = nullptr);

  // Statuses are the server's; a refusal that names a time to wait carries it (RetryAfter).
  absl::StatusOr<RewardResponse> Score(const RewardRequest& request, absl::Time deadline) override;

  // Calls in progress and all later ones end with Cancelled. Idempotent.
  void Cancel();

 private:
  const std::unique_ptr<v1::RewardService::Stub> stub_;
  const NowFunction now_;
  Blocked* const blocked_;
  Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  std::set<grpc::ClientContext*> calls_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace sluice::actor

#endif  // SLUICE_ACTOR_RPC_GRPC_REWARD_CLIENT_H_
