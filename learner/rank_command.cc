#include "learner/rank_command.h"

#include <ATen/Parallel.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "common/collective/backend.h"
#include "common/collective/collective.h"
#include "common/collective/device_stream.h"
#include "common/collective/nccl_api.h"
#include "common/collective/nccl_collective.h"
#include "common/collective/weight_group.h"
#include "common/file/file.h"
#include "common/log/log.h"
#include "common/metrics/metrics.h"
#include "common/rpc/channel.h"
#include "common/spec/spec.h"
#include "common/status/exit_code.h"
#include "common/status/status.h"
#include "common/sync/notification.h"
#include "common/sync/thread.h"
#include "common/tensor/device.h"
#include "common/tensor/keep_memory.h"
#include "common/time/clock.h"
#include "learner/rank_server.h"
#include "learner/rpc/job_reporter.h"
#include "learner/rpc/member_client.h"
#include "learner/rpc/options_from_spec.h"
#include "learner/run/metered_collective.h"
#include "learner/run/metered_monitor.h"
#include "learner/run/run_context.h"

namespace sluice::learner {
namespace {

// How often the loop looks whether the process is to stop.
constexpr absl::Duration kLookInterval = absl::Milliseconds(200);
// What the coordinator may need beyond a lease to notice that it ended.
constexpr absl::Duration kLeaseMargin = absl::Seconds(2);
// Of forming a group, and of a call in it: a rank that is late by more is taken for stuck.
constexpr absl::Duration kGroupTimeout = absl::Seconds(30);
// Time for the coordinator to hear that this process is to stop, before the job hears of it.
constexpr absl::Duration kAnnounceTimeout = absl::Seconds(1);
// Time for the last report of a job to arrive.
constexpr absl::Duration kFlushTimeout = absl::Seconds(30);
constexpr char kIdle[] = "idle";
constexpr size_t kActorLinesAtOnce = 200;

std::string NewMemberId() {
  std::random_device entropy;
  return absl::StrFormat("%08x%08x", entropy(), entropy());
}

std::string HostName() {
  char name[256] = {};
  return gethostname(name, sizeof(name) - 1) == 0 ? name : "unknown";
}

// The errors of a group that broke: another epoch may do better. A preemption looks alike and is not one of them.
bool IsBrokenGroup(const absl::Status& status) { return ExitCodeFor(status) == ExitCode::kTransient; }

// The ends that every rank comes to at the same step.
bool IsAgreedOutcome(const absl::Status& status) {
  const ExitCode code = ExitCodeFor(status);
  return code == ExitCode::kDone || code == ExitCode::kPreempted || code == ExitCode::kCancelled ||
         code == ExitCode::kHeld;
}

// What the job tells the coordinator, and what the outside tells the job.
class MemberMonitor : public JobMonitor {
 public:
  MemberMonitor(MemberClient* client, JobReporter* reporter, bool first)
      : client_(client), reporter_(reporter), first_(first) {}

  void SetPhase(const std::string& phase) override { client_->SetPhase(phase); }
  void ReportMetrics(uint64_t step, uint64_t total_steps, const std::map<std::string, double>& values) override {
    client_->SetProgress(step, {});
    if (first_) reporter_->ReportMetrics(step, total_steps, values);
  }
  void ReportLog(const std::string& text) override {
    LogInfo(text);
    if (first_) reporter_->ReportLog("info", text);
  }
  void ReportResult(const std::string& key, const std::string& value) override {
    if (first_) reporter_->ReportResult(key, value);
  }
  void ReportCheckpoint(const std::string& folder, uint64_t step, uint64_t policy_version,
                        const LedgerBalance& ledger) override {
    client_->SetProgress(step, ledger);
    if (first_) reporter_->ReportCheckpoint(folder, policy_version, ledger);
  }
  StopRequest stop() const override { return stop_.load(); }
  void Ask(StopRequest request) { stop_ = request; }

 private:
  MemberClient* const client_;
  JobReporter* const reporter_;
  const bool first_;
  std::atomic<StopRequest> stop_{StopRequest::kNone};
};

class MemberReservations : public Reservations {
 public:
  MemberReservations(MemberClient* client, std::string job_id, uint64_t epoch)
      : client_(client), job_id_(std::move(job_id)), epoch_(epoch) {}
  absl::StatusOr<uint64_t> NextPolicyVersion(uint64_t after) override {
    return client_->ReserveVersion(job_id_, epoch_, after);
  }
  absl::Status ReserveOrdinals(uint64_t step, uint64_t first, uint64_t count) override {
    return client_->ReserveOrdinals(job_id_, epoch_, step, first, count);
  }

 private:
  MemberClient* const client_;
  const std::string job_id_;
  const uint64_t epoch_;
};

// The rendezvous store of one epoch: a wait in it ends with the epoch, or for a peer that died this rank would be
// missing from the next group until its patience is over.
class EpochStore : public KvStore {
 public:
  EpochStore(MemberClient* client, uint64_t epoch) : client_(client), epoch_(epoch) {}
  absl::Status Set(const std::string& key, const std::string& value) override { return client_->kv()->Set(key, value); }
  absl::StatusOr<int64_t> Add(const std::string& key, int64_t amount) override {
    return client_->kv()->Add(key, amount);
  }
  absl::StatusOr<std::string> Get(const std::string& key, absl::Duration timeout) override {
    for (absl::Duration left = timeout;; left -= kLookInterval) {
      absl::StatusOr<std::string> value =
          client_->kv()->Get(key, std::clamp(left, absl::ZeroDuration(), kLookInterval));
      if (value.ok() || !absl::IsDeadlineExceeded(value.status()) || left <= kLookInterval) return value;
      if (client_->view().epoch != epoch_) {
        return absl::AbortedError(absl::StrCat("epoch ", epoch_, " ended while its group was forming"));
      }
    }
  }

 private:
  MemberClient* const client_;
  const uint64_t epoch_;
};

class RankLoop {
 public:
  // `nccl`: null to reduce over Gloo.
  RankLoop(const RankFlags& flags, const Placement& placement, const NcclApi* nccl, const std::atomic<int>& stop,
           MemberClient* client, RankServer* server, JobSeries* series, JobWaits* waits, ServiceManager* manager)
      : flags_(flags),
        placement_(placement),
        nccl_(nccl),
        stop_(stop),
        client_(client),
        server_(server),
        series_(series),
        waits_(waits),
        manager_(manager) {}

  void Run();

 private:
  bool stopping() const { return stop_.load() != static_cast<int>(StopRequest::kNone); }
  // One assignment in one epoch, from the collective to the outcome.
  void RunAssigned(const RankView& view);
  // `told` is what the job tells how it goes: the monitor, or one that passes on to it.
  absl::Status RunInEpoch(const RankView& view, MemberMonitor* monitor, JobMonitor* told, JobReporter* reporter,
                          const JobOptions& options);
  void TellCause(const RankView& view, const absl::Status& status, JobReporter* reporter) const;
  // Waits for the next epoch, or makes one.
  void LeaveBrokenGroup(const RankView& view);
  // Waits until the assignment is over for the coordinator too, or `until`. Returns whether it is.
  bool AwaitEnd(const RankView& view, absl::Time until, bool also_while_stopping);
  // Brings what happens outside to the job until `done`: a cancel, a drain, the end of the epoch, a signal.
  // And what actors say about the job to its reporter.
  void Watch(const RankView& view, MemberMonitor* monitor, JobReporter* reporter, Collective* collective,
             const Notification& done);
  absl::StatusOr<std::unique_ptr<Collective>> FormGroup(const RankView& view, const JobOptions& options);

  const RankFlags& flags_;
  const Placement placement_;
  const NcclApi* const nccl_;
  const std::atomic<int>& stop_;
  MemberClient* const client_;
  RankServer* const server_;
  JobSeries* const series_;
  JobWaits* const waits_;
  ServiceManager* const manager_;
};

void RankLoop::Run() {
  uint64_t seen = 0;
  uint64_t done_epoch = 0;  // the assignment that this rank has run
  std::string done_job;
  client_->SetPhase(kIdle);
  while (!stopping()) {
    const RankView view = client_->WaitForChange(seen, kLookInterval);
    seen = view.generation;
    if (view.epoch == 0 || view.job == nullptr || view.drain) continue;
    if (view.epoch == done_epoch && view.job->id == done_job) continue;
    done_epoch = view.epoch;
    done_job = view.job->id;
    manager_->SetStatus(absl::StrCat("job ", done_job, ", rank ", view.rank, " of ", view.world_size));
    RunAssigned(view);
    manager_->SetStatus(kIdle);
    client_->SetPhase(kIdle);
  }
}

absl::StatusOr<std::unique_ptr<Collective>> RankLoop::FormGroup(const RankView& view, const JobOptions& options) {
  // A data set is prepared by one rank; nobody reduces anything.
  if (view.world_size == 1 || options.kind == JobKind::kPrepare) {
    return MakeSingleCollective(view.epoch);
  }
  const auto store = std::make_shared<EpochStore>(client_, view.epoch);
  const std::string& name = view.job->id;  // the next job of this epoch forms a group of its own
  const CollectiveBackend backend = nccl_ != nullptr ? CollectiveBackend::kNccl : CollectiveBackend::kGloo;
  SLUICE_RETURN_IF_ERROR(
      AgreeOnBackend(*store, backend, view.rank, view.world_size, view.epoch, name, kGroupTimeout, MonotonicClock()));
  if (backend == CollectiveBackend::kGloo) {
    const GlooOptions gloo = {.name = name, .host = flags_.collective_host, .timeout = kGroupTimeout};
    return MakeGlooCollective(store, view.rank, view.world_size, view.epoch, gloo);
  }
  SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<DeviceStream> stream, MakeTorchStream(placement_.device));
  return NcclCollective::Form(*nccl_, std::move(stream), *store, view.rank, view.world_size, view.epoch,
                              {.name = name, .timeout = kGroupTimeout});
}

void RankLoop::Watch(const RankView& view, MemberMonitor* monitor, JobReporter* reporter, Collective* collective,
                     const Notification& done) {
  uint64_t seen = view.generation;
  bool announced = false;
  while (!done.WaitFor(absl::ZeroDuration())) {
    const RankView now = client_->WaitForChange(seen, kLookInterval);
    seen = now.generation;
    reporter->ReportActorLines(server_->actor_lines().Take(view.job->id, kActorLinesAtOnce));
    const bool same_job = now.job != nullptr && now.job->id == view.job->id;
    if (now.epoch != view.epoch || !same_job) {
      // Nobody waits for this rank any more, and it must not wait for the dead.
      collective->Abort();
      server_->hub().Stop();
      return;
    }
    if (stopping() && !announced) {
      // No word of how long: a checkpoint takes what it takes, and the unit bounds it.
      manager_->Stopping("draining: the job writes a checkpoint");
      // Before the job ends, or the coordinator would give the next one, or this one again, to a rank that goes.
      client_->AnnounceLeaving(kAnnounceTimeout);
      announced = true;
    }
    if (now.cancel_requested) {
      monitor->Ask(StopRequest::kCancel);
    } else if (now.drain || now.pause_requested || stopping()) {
      monitor->Ask(StopRequest::kPreempt);
    }
  }
}

absl::Status RankLoop::RunInEpoch(const RankView& view, MemberMonitor* monitor, JobMonitor* told, JobReporter* reporter,
                                  const JobOptions& options) {
  client_->SetPhase("forming the group");
  SLUICE_ASSIGN_OR_RETURN(std::unique_ptr<Collective> group, FormGroup(view, options));
  const std::unique_ptr<Collective> collective = std::make_unique<MeteredCollective>(std::move(group), &waits_->peers);
  MemberReservations reservations(client_, view.job->id, view.epoch);
  RunContext context;
  context.job_id = view.job->id;
  context.options = options;
  context.spec_yaml = SpecToYaml(view.job->spec);
  context.spec_digest = SpecDigest(view.job->spec);
  context.resume_digest = ResumeDigest(view.job->spec);
  context.run_folder = view.job->run_folder;
  context.collective = collective.get();
  context.monitor = told;
  context.reservations = &reservations;
  context.rollouts = server_;
  context.now = MonotonicClock();
  context.waits = waits_;
  context.placement = placement_;
  SLUICE_RETURN_IF_ERROR(MakeDirectories(context.run_folder));
  if (view.rank == 0) {
    SLUICE_RETURN_IF_ERROR(WriteFileAtomically(JoinPath(context.run_folder, "spec.yaml"), context.spec_yaml));
  }
  Notification done;
  const Thread watcher = StartThread("watch", [&] { Watch(view, monitor, reporter, collective.get(), done); });
  const absl::Status status = RunJob(context);
  done.Notify();
  return status;
}

bool RankLoop::AwaitEnd(const RankView& view, absl::Time until, bool also_while_stopping) {
  const auto still_assigned = [&view](const RankView& now) {
    return now.epoch == view.epoch && now.job != nullptr && now.job->id == view.job->id;
  };
  RankView now = client_->view();
  while (still_assigned(now) && (also_while_stopping || !stopping()) && MonotonicNow() < until) {
    now = client_->WaitForChange(now.generation, kLookInterval);
  }
  return !still_assigned(now);
}

void RankLoop::LeaveBrokenGroup(const RankView& view) {
  // A peer that died is taken for a living one until its lease ends; a group formed before that would have it again.
  client_->SetPhase("waiting for a new group");
  const absl::Time until = MonotonicNow() + client_->lease() + kLeaseMargin;
  // Every rank lives, then: one that leaves and joins again makes a new epoch.
  if (!AwaitEnd(view, until, /*also_while_stopping=*/false)) client_->Leave("the group broke");
}

// Whoever looks for the first cause needs every rank's word: the outcome is that of one, and a group that broke has
// none.
void RankLoop::TellCause(const RankView& view, const absl::Status& status, JobReporter* reporter) const {
  if (IsAgreedOutcome(status)) return;
  const bool broke = IsBrokenGroup(status);
  // A rank that stops because its epoch is over has nothing to tell that its coordinator does not know.
  if (broke && client_->view().epoch != view.epoch) return;
  reporter->ReportLog(broke ? "warning" : "error",
                      absl::StrCat("rank ", view.rank, " (", HostName(), ") stopped: ", status.message()),
                      broke ? LineCause::kPeer : LineCause::kOwn);
}

void RankLoop::RunAssigned(const RankView& view) {
  const JobOptions options = CopyOptions(view.job->spec);
  if (options.kind == JobKind::kPrepare && view.rank != 0) return;
  LogInfo("job assigned",
          {{"job", view.job->id}, {"epoch", view.epoch}, {"rank", view.rank}, {"world_size", view.world_size}});
  JobReporter reporter(client_, view.job->id, view.epoch, {.rank = view.rank});
  reporter.ReportLog("info", absl::StrCat("rank ", view.rank, " of ", view.world_size, " starts in epoch ", view.epoch,
                                          " on ", HostName(), ", actors attach at ", server_->address()));
  MemberMonitor monitor(client_, &reporter, view.rank == 0);
  std::optional<MeteredMonitor> metered;  // the first rank alone is told how the job goes
  if (view.rank == 0) metered.emplace(&monitor, series_);
  JobMonitor* const told = metered ? static_cast<JobMonitor*>(&*metered) : &monitor;
  const absl::Status status = RunInEpoch(view, &monitor, told, &reporter, options);
  if (metered) metered->End(status);
  reporter.ReportActorLines(server_->actor_lines().Take(view.job->id, kActorLinesAtOnce));
  TellCause(view, status, &reporter);
  const absl::Status flushed = reporter.Flush(kFlushTimeout);
  if (!flushed.ok()) LogWarning("some reports did not arrive", {{"error", flushed.ToString()}});
  if (IsBrokenGroup(status)) {
    LogWarning("the group broke; the job resumes from its checkpoint in the next epoch",
               {{"job", view.job->id}, {"epoch", view.epoch}, {"error", status.ToString()}});
    LeaveBrokenGroup(view);
    return;
  }
  LogInfo("job ended", {{"job", view.job->id}, {"outcome", status.ok() ? "done" : std::string(status.message())}});
  // What all ranks agreed on is the first rank's to tell, after its last report. A failure may be of one rank alone,
  // and the others only see a broken group.
  if (view.rank != 0 && IsAgreedOutcome(status)) {
    // Who left before the first rank has told would make a lost group of one that gave its job back.
    if (stopping()) AwaitEnd(view, MonotonicNow() + client_->lease() + kLeaseMargin, /*also_while_stopping=*/true);
    return;
  }
  const absl::Status finished = client_->Finish(view.job->id, view.epoch, status);
  if (!finished.ok()) LogWarning("the outcome was not taken", {{"error", finished.ToString()}});
}

}  // namespace

absl::Status RankCommand(const RankFlags& flags, const std::atomic<int>& stop, ServiceManager* manager) {
  SLUICE_RETURN_IF_ERROR(CheckAddress("--coordinator", flags.coordinator));
  SLUICE_ASSIGN_OR_RETURN(const Placement placement, OpenPlacement(flags.device, flags.precision));
  SLUICE_ASSIGN_OR_RETURN(const CollectiveBackend backend, ParseBackend(flags.collective, placement.device));
  SLUICE_ASSIGN_OR_RETURN(
      const WeightBackend weights,
      OpenWeightBackend(flags.weights, placement.device, flags.security.credentials->has_tls(), flags.collective_host));
  std::optional<NcclApi> nccl;
  if (backend == CollectiveBackend::kNccl) {
    SLUICE_ASSIGN_OR_RETURN(nccl, LoadNccl());
  }
  const std::shared_ptr<const Credentials>& credentials = flags.security.credentials;
  SLUICE_RETURN_IF_ERROR(credentials->CheckServer(flags.coordinator, {Role::kCoordinator}));
  SLUICE_ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel,
                          MakeChannel(flags.coordinator, credentials, {Role::kCoordinator}));
  at::set_num_threads(flags.threads);
  KeepFreedMemory();
  Metrics metrics;
  SLUICE_ASSIGN_OR_RETURN(
      const std::unique_ptr<RankServer> server,
      RankServer::Start(flags.address, flags.security, &metrics, MonotonicClock(), flags.publication, weights));
  if (!flags.metrics_address.empty()) SLUICE_RETURN_IF_ERROR(metrics.Serve(flags.metrics_address).status());

  MemberClientOptions member;
  member.member_id = NewMemberId();
  member.address = server->address();
  member.host = HostName();
  member.explain = [&](const absl::Status& status) {
    return credentials->Explain(status, flags.coordinator, {Role::kCoordinator});
  };
  MemberClient client(channel, member);
  client.SetLoad([&server] {
    return MemberClient::RolloutLoad{.actors = server->hub().num_actors(),
                                     .waiting_blocks = server->hub().blocks_for_actors()};
  });
  client.SetReleaseActor([&server] { server->hub().ReleaseActor(); });
  client.Start();
  LogInfo("rank started", {{"address", server->address()},
                           {"coordinator", flags.coordinator},
                           {"member", client.member_id()},
                           {"device", flags.device},
                           {"precision", flags.precision},
                           {"collective", BackendName(backend)},
                           {"weights", weights.name.empty() ? "grpc" : weights.name}});
  manager->Ready(kIdle);
  JobSeries series(&metrics, WallClock());
  JobWaits waits(&metrics, MonotonicClock());
  RankLoop(flags, placement, nccl ? &*nccl : nullptr, stop, &client, server.get(), &series, &waits, manager).Run();
  manager->Stopping("leaving the group");
  LogInfo("rank stops");
  client.Leave("the process stops");
  client.Stop();
  return absl::OkStatus();
}

}  // namespace sluice::learner
