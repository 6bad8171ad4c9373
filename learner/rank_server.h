// A learner rank's door to actors: hub, policy store, the weight group, the services and their server. Wiring of one
// process.
#ifndef SLUICE_LEARNER_RANK_SERVER_H_
#define SLUICE_LEARNER_RANK_SERVER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/collective/weight_group.h"
#include "common/job_lines/job_lines.h"
#include "common/metrics/metrics.h"
#include "common/rpc/rendezvous.h"
#include "common/rpc/server.h"
#include "common/sync/epoch_kv_store.h"
#include "common/time/clock.h"
#include "learner/broadcast/broadcast_sender.h"
#include "learner/ledger/rollout_hub.h"
#include "learner/publish/policy_store.h"
#include "learner/publish/publication.h"
#include "learner/rpc/policy_service.h"
#include "learner/rpc/rollout_service.h"
#include "learner/run/run_context.h"

namespace sluice::learner {

class RankServer : public RolloutService {
 public:
  // Listens for actors at `address`. `metrics` must outlive the server, the credentials must outlive `metrics`.
  // `weights` is what versions are broadcast over, and names the group of `publication`. InvalidArgument: `publication`
  // cannot work.
  static absl::StatusOr<std::unique_ptr<RankServer>> Start(const std::string& address, const ServerSecurity& security,
                                                           Metrics* metrics, const NowFunction& now,
                                                           PublicationOptions publication,
                                                           const WeightBackend& weights);
  // Ends the actors' streams with Unavailable: they look for another rank.
  ~RankServer() override;

  absl::StatusOr<GroupSource*> StartJob(const RolloutJob& job) override;
  EvalSource* evaluation() override { return &hub_; }
  void EndJob() override;

  RolloutHub& hub() { return hub_; }
  // What actors say about jobs.
  JobLines& actor_lines() { return actor_lines_; }
  const std::string& address() const { return server_->address(); }

 private:
  RankServer(Metrics* metrics, const NowFunction& now, const PublicationOptions& publication,
             const WeightBackend& weights);

  PolicyStore store_;
  Counter* const broadcast_bytes_;
  const std::shared_ptr<EpochKvStore> rendezvous_store_;
  std::unique_ptr<BroadcastSender> sender_;  // null: nothing is broadcast
  RolloutHub hub_;
  JobLines actor_lines_;
  GrpcRolloutService rollouts_;
  GrpcPolicyService policies_;
  RendezvousService rendezvous_;
  std::unique_ptr<RpcServer> server_;
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RANK_SERVER_H_
