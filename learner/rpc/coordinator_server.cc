#include "learner/rpc/coordinator_server.h"

#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/file/file.h"
#include "common/log/log.h"
#include "common/rpc/channel.h"
#include "common/status/status.h"
#include "common/time/clock.h"
#include "learner/rpc/write_audit.h"

namespace sluice::learner {
namespace {

// Folder part of a path, "" if there is none.
std::string FolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos || slash == 0 ? "" : path.substr(0, slash);
}

}  // namespace

absl::StatusOr<std::unique_ptr<CoordinatorServer>> CoordinatorServer::Start(const CoordinatorServerOptions& options) {
  SLUICE_RETURN_IF_ERROR(options.coordinator.Validate());
  std::unique_ptr<CoordinatorServer> server(new CoordinatorServer);
  const std::string folder = FolderOf(options.store_path);
  if (!folder.empty()) SLUICE_RETURN_IF_ERROR(MakeDirectories(folder));
  SLUICE_ASSIGN_OR_RETURN(server->store_, JobStore::Open(options.store_path, options.store));
  SLUICE_ASSIGN_OR_RETURN(server->coordinator_, Coordinator::Create(options.coordinator, server->store_.get(),
                                                                    MonotonicClock(), WallClock()));
  ServerSecurity security = options.security;
  SLUICE_RETURN_IF_ERROR(server->OpenBooks(options, &security));
  if (!options.data_root.empty()) {
    SLUICE_ASSIGN_OR_RETURN(
        server->data_,
        DataStore::Open({.root = options.data_root, .quota_bytes = options.data_quota_bytes}, WallClock()));
  }
  JobServiceOptions jobs;
  jobs.runs_folder = options.store.runs_folder;
  jobs.data = server->data_.get();
  jobs.reward_address = options.reward_address;
  jobs.credentials = options.security.credentials;
  jobs.max_queued = options.store.max_queued;
  server->jobs_ = std::make_unique<JobService>(server->coordinator_.get(), jobs);
  server->guard_ = std::make_unique<GuardedJobService>(server->jobs_.get(), server->store_.get(), server->tokens_.get(),
                                                       server->audit_.get());
  server->data_service_ = std::make_unique<DataService>(
      server->data_.get(), server->store_.get(),
      [guard = server->guard_.get()](grpc::ServerContextBase* context, absl::string_view method) {
        return guard->AdmitData(context, method);
      });
  server->members_ = std::make_unique<MemberService>(server->coordinator_.get(), server->audit_.get());
  SLUICE_ASSIGN_OR_RETURN(
      server->server_,
      RpcServer::Start(options.address, {server->guard_.get(), server->members_.get(), server->data_service_.get()},
                       security));
  server->AddMetrics();
  options.security.credentials->AddMetrics(&server->metrics_);
  if (!options.metrics_address.empty()) {
    SLUICE_RETURN_IF_ERROR(server->metrics_.Serve(options.metrics_address).status());
  }
  CoordinatorServer* const raw = server.get();
  const absl::Duration tick = options.coordinator.heartbeat_interval / 2;
  server->ticker_ = StartThread("coordinator", [raw, tick] {
    while (!raw->stop_.WaitFor(tick)) raw->coordinator_->Tick();
  });
  LogInfo("coordinator ready", {{"address", server->address()},
                                {"ranks", options.coordinator.ranks},
                                {"store", options.store_path},
                                {"runs", options.store.runs_folder}});
  return server;
}

absl::Status CoordinatorServer::OpenBooks(const CoordinatorServerOptions& options, ServerSecurity* security) {
  if (!options.audit_path.empty()) {
    SLUICE_ASSIGN_OR_RETURN(audit_, AuditLog::Open(options.audit_path, WallClock()));
    // gRPC does not tell the address of a peer that the table of methods refuses; its certificate says who it is.
    security->on_refused = [audit = audit_.get()](const PeerIdentity& peer, const std::string& method,
                                                  const absl::Status& reason) {
      WriteAudit(audit, {peer.name, "certificate", "", method, "", reason});
    };
  }
  if (options.tokens_path.empty()) return absl::OkStatus();
  if (!security->credentials->has_tls() && !IsLoopback(options.address)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--tokens: at ", options.address,
                     " tokens would travel in the clear; give --tls-ca, --tls-cert and --tls-key"));
  }
  SLUICE_ASSIGN_OR_RETURN(tokens_, TokenFile::Open(options.tokens_path, WallClock()));
  security->tokens_open = true;
  return absl::OkStatus();
}

CoordinatorServer::~CoordinatorServer() {
  if (!stop_.HasBeenNotified()) stop_.Notify();
  ticker_.Join();
  // Whoever waits is woken before the server waits for them.
  if (jobs_ != nullptr) jobs_->Stop();
  if (coordinator_ != nullptr) coordinator_->kv()->Close();
  if (server_ != nullptr) server_->Shutdown(absl::Seconds(1));
}

void CoordinatorServer::AddMetrics() {
  Gauge* epoch = metrics_.AddGauge("sluice_coordinator_epoch", "Epoch of the learner group; 0: there is none.");
  Gauge* members = metrics_.AddGauge("sluice_coordinator_members", "Ranks that keep their lease, standbys included.");
  Gauge* draining = metrics_.AddGauge("sluice_coordinator_draining", "1 while no job is assigned any more.");
  std::map<JobState, Gauge*> jobs;
  for (const JobState state : {JobState::kQueued, JobState::kRunning}) {
    jobs[state] = metrics_.AddGauge("sluice_coordinator_jobs", "Jobs that have not ended, by state.",
                                    {{"state", std::string(JobStateName(state))}});
  }
  metrics_.OnScrape([this, epoch, members, draining, jobs] {
    const CoordinatorSnapshot snapshot = coordinator_->Snapshot();
    epoch->Set(static_cast<double>(snapshot.epoch));
    members->Set(static_cast<double>(snapshot.members.size()));
    draining->Set(snapshot.drain ? 1 : 0);
    const absl::StatusOr<std::vector<JobRecord>> unfinished = store_->Unfinished();
    if (!unfinished.ok()) return;
    std::map<JobState, int> counts;
    for (const JobRecord& job : *unfinished) ++counts[job.state];
    for (const auto& [state, gauge] : jobs) gauge->Set(counts[state]);
  });
}

absl::Status CoordinatorServer::Drain(absl::Duration timeout) {
  coordinator_->Drain();
  const absl::Time until = MonotonicNow() + timeout;
  while (!coordinator_->Drained()) {
    if (MonotonicNow() >= until) {
      return absl::DeadlineExceededError(
          "the running job has not stopped in time; it is taken up again at the next start");
    }
    stop_.WaitFor(absl::Milliseconds(50));
  }
  return absl::OkStatus();
}

}  // namespace sluice::learner
