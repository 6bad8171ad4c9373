#include "learner/rank_server.h"

#include <utility>

#include "common/status/status.h"

namespace sluice::learner {
namespace {

// Time that calls in progress get when the rank goes.
constexpr absl::Duration kShutdownGrace = absl::Seconds(2);

// Of all actors together: half a thousand may tell the same at once, and a job's log is for people.
constexpr JobLinesOptions kActorLines = {.max_waiting = 1000, .burst = 500, .per_second = 10};

// A member leaves an address for each other member (Gloo), or reads one id (NCCL). Each wait holds a thread.
constexpr MemoryKvStoreOptions kRendezvousBounds = {
    .max_keys = 8192, .max_bytes = 64 << 20, .max_value_bytes = 256 << 10, .max_waiters = 256};

}  // namespace

RankServer::RankServer(Metrics* metrics, const NowFunction& now, const PublicationOptions& publication,
                       const WeightBackend& weights)
    // There whatever --weights says: a rank that broadcasts nothing has a 0.
    : broadcast_bytes_(metrics->AddCounter("sluice_weight_broadcast_bytes_total",
                                           "Bytes of weights broadcast to actors, once a version.")),
      rendezvous_store_(std::make_shared<EpochKvStore>(kRendezvousBounds)),
      sender_(weights.form == nullptr ? nullptr
                                      : std::make_unique<BroadcastSender>(BroadcastSender::Options{
                                            .form = weights.form,
                                            .store = rendezvous_store_,
                                            .find = [this](const std::string& job_id,
                                                           uint64_t version) { return store_.Find(job_id, version); },
                                            .done = [this](uint64_t epoch, uint64_t version,
                                                           bool ok) { hub_.OnBroadcast(epoch, version, ok); },
                                            .now = now,
                                            .bytes_sent = broadcast_bytes_})),
      hub_({.now = now, .metrics = metrics, .snapshots = &store_, .publication = publication, .sender = sender_.get()}),
      actor_lines_(kActorLines, now),
      rollouts_(&hub_, &actor_lines_),
      policies_(&store_, GrpcPolicyService::Options{.metrics = metrics}),
      rendezvous_(rendezvous_store_.get()) {
  if (sender_ != nullptr) sender_->Start();
}

absl::StatusOr<std::unique_ptr<RankServer>> RankServer::Start(const std::string& address,
                                                              const ServerSecurity& security, Metrics* metrics,
                                                              const NowFunction& now, PublicationOptions publication,
                                                              const WeightBackend& weights) {
  publication.group = weights.name;
  SLUICE_RETURN_IF_ERROR(publication.Validate());
  std::unique_ptr<RankServer> server(new RankServer(metrics, now, publication, weights));
  SLUICE_ASSIGN_OR_RETURN(
      server->server_,
      RpcServer::Start(address, {&server->rollouts_, &server->policies_, &server->rendezvous_}, security));
  security.credentials->AddMetrics(metrics);
  return server;
}

RankServer::~RankServer() {
  hub_.Stop();
  hub_.DisconnectActors(absl::UnavailableError("the rank stops; attach to another one"));
  if (sender_ != nullptr) sender_->Stop();
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
