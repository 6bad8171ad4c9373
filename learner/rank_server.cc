#include "learner/rank_server.h"

#include <utility>

#include "common/status/status.h"

namespace sluice::learner {
namespace {

// Time that calls in progress get when the rank goes.
constexpr absl::Duration kShutdownGrace = absl::Seconds(2);

}  // namespace

RankServer::RankServer(Metrics* metrics, NowFunction now)
    : hub_({.now = std::move(now), .metrics = metrics, .snapshots = &store_}),
      rollouts_(&hub_),
      policies_(&store_, GrpcPolicyService::Options{.metrics = metrics}) {}

absl::StatusOr<std::unique_ptr<RankServer>> RankServer::Start(const std::string& address,
                                                              const ServerSecurity& security, Metrics* metrics,
                                                              NowFunction now) {
  std::unique_ptr<RankServer> server(new RankServer(metrics, std::move(now)));
  SLUICE_ASSIGN_OR_RETURN(server->server_,
                          RpcServer::Start(address, {&server->rollouts_, &server->policies_}, security));
  security.credentials->AddMetrics(metrics);
  return server;
}

RankServer::~RankServer() {
  hub_.Stop();
  hub_.DisconnectActors(absl::UnavailableError("the rank stops; attach to another one"));
  if (server_ != nullptr) server_->Shutdown(kShutdownGrace);
}

absl::StatusOr<GroupSource*> RankServer::StartJob(const RolloutJob& job) {
  const std::shared_ptr<const Trie> trie = job.dataset->shared_trie();
  HubJob hub_job;
  hub_job.job_id = job.job_id;
  hub_job.epoch = job.epoch;
  hub_job.seed = job.seed;
  hub_job.model_config_json = job.model_config_json;
  hub_job.catalog_version = trie->version();
  hub_job.levels = trie->levels();
  hub_job.find_leaf = [trie](absl::Span<const int32_t> tokens) { return trie->FindLeaf(tokens); };
  hub_job.options = job.options;
  hub_job.groups_per_step = job.groups_per_step;
  hub_job.beam_space = LogProbSpace::kFull;
  // The catalog first: an actor asks for it as soon as it is welcomed.
  store_.PutCatalog(job.job_id, *trie);
  SLUICE_RETURN_IF_ERROR(hub_.StartJob(std::move(hub_job)));
  return &hub_;
}

void RankServer::EndJob() {
  hub_.EndJob();
  store_.Clear();
}

}  // namespace sluice::learner
