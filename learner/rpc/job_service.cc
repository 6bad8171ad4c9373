#include "learner/rpc/job_service.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "common/file/file.h"
#include "common/log/log.h"
#include "common/rpc/status.h"
#include "common/rpc/stream_sender.h"
#include "common/spec/spec.h"
#include "common/status/status.h"
#include "common/time/clock.h"
#include "common/version/version.h"
#include "learner/artifact/artifact.h"
#include "learner/artifact/checkpoint_copy.h"
#include "learner/artifact/relative_path.h"
#include "learner/rpc/admission.h"
#include "learner/rpc/compare_jobs.h"
#include "learner/rpc/data_service.h"
#include "learner/rpc/describe_job.h"
#include "learner/rpc/fork_spec.h"
#include "learner/rpc/job_messages.h"
#include "learner/rpc/reward_check.h"
#include "learner/rpc/storage_check.h"
#include "learner/rpc/trace_job.h"

namespace sluice::learner {
namespace {

constexpr size_t kMaxRequestIdBytes = 128;
constexpr int kDefaultListed = 100;
constexpr int kMaxListed = 1000;
constexpr size_t kMaxFileNameBytes = 4096;
constexpr int kMaxOverrides = 1000;
// One spec cannot make an answer of any size; who has mended so many asks again.
constexpr int kMaxSpecErrors = 1000;
constexpr size_t kMaxArtifacts = 10000;
constexpr uint32_t kMaxPieceBytes = 4 << 20;
// Below the folder of runs: checkpoints that forks began with. No job's id looks so.
constexpr char kForks[] = "forks";
// Events handed to a stream at a time; it gets more when half of them are written.
constexpr size_t kStreamEvents = 64;
constexpr absl::Duration kFeedInterval = absl::Seconds(1);

absl::Status CheckRequestId(const std::string& request_id) {
  if (!request_id.empty() && request_id.size() <= kMaxRequestIdBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("request_id: want 1 to ", kMaxRequestIdBytes, " bytes, got ", request_id.size()));
}

absl::StatusOr<NewJob> CheckSubmission(const v1::SubmitRequest& request, const DataStore* data) {
  SLUICE_RETURN_IF_ERROR(CheckRequestId(request.request_id()));
  if (static_cast<int64_t>(request.spec_yaml().size()) > kMaxSpecBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("spec_yaml: want at most ", kMaxSpecBytes, " bytes, got ", request.spec_yaml().size()));
  }
  v1::JobSpec given = request.spec();
  SLUICE_RETURN_IF_ERROR(ResolvePushedData(data, &given));
  SLUICE_ASSIGN_OR_RETURN(const v1::JobSpec effective, CompleteSpec(given));
  NewJob job;
  job.request_id = request.request_id();
  job.name = effective.name();
  job.kind = effective.kind();
  job.spec = effective.SerializeAsString();
  job.spec_yaml = request.spec_yaml();
  job.spec_digest = SpecDigest(effective);
  return job;
}

// The folder of the checkpoint that a fork begins with. `name`: "step-00000120"; empty: the last one.
absl::StatusOr<std::string> CheckpointOf(const JobRecord& job, const std::string& name) {
  if (name.empty() && job.last_checkpoint.empty()) {
    return absl::NotFoundError(absl::StrCat("job ", job.id, " has no checkpoint yet"));
  }
  const std::string folder = JoinPath(job.run_folder, "checkpoints");
  if (name.empty()) return NewestCheckpoint(folder);
  SLUICE_RETURN_IF_ERROR(CheckRelativePath(name));
  if (!absl::StartsWith(name, "step-") || absl::StrContains(name, "/")) {
    return absl::InvalidArgumentError(absl::StrCat("checkpoint: want a name like step-00000120, got '", name, "'"));
  }
  return JoinPath(folder, name);
}

std::string HostName() {
  char name[256] = {};
  return gethostname(name, sizeof(name) - 1) == 0 ? name : "unknown";
}

}  // namespace

// One Watch stream. Lives until gRPC is done with it and the service has forgotten it.
class JobService::Watcher : public grpc::ServerWriteReactor<v1::JobEvent> {
 public:
  Watcher(JobService* service, const v1::WatchRequest& request)
      : service_(service),
        job_id_(request.job_id()),
        until_now_(request.until_now()),
        sequence_(request.after_sequence()),
        sender_(
            {kStreamEvents, 64 << 20}, [this](const v1::JobEvent* event) { StartWrite(event); },
            [this](const absl::Status& status) { Finish(ToGrpc(status)); }) {}

  const std::string& job_id() const { return job_id_; }
  bool until_now() const { return until_now_; }
  uint64_t sequence() const { return sequence_; }
  size_t room() const { return kStreamEvents - std::min(kStreamEvents, sender_.queued()); }
  absl::Time last_progress() const { return absl::FromUnixMicros(last_progress_us_); }

  // Only the feeding thread sends.
  bool Send(v1::JobEvent event) {
    const uint64_t sequence = event.sequence();
    if (!sender_.Send(std::move(event))) return false;
    sequence_ = sequence;
    return true;
  }
  // There may be more events than the stream had room for: whoever makes or finds room afterwards feeds it again.
  void SetMore(bool more) { more_ = more; }
  bool HungryForMore() const { return more_ && sender_.queued() <= kStreamEvents / 2; }
  void Close(absl::Status status) { sender_.Close(std::move(status)); }
  void Abort(absl::Status status) { sender_.Abort(std::move(status)); }

  void OnWriteDone(bool ok) override {
    last_progress_us_ = absl::ToUnixMicros(MonotonicNow());
    sender_.OnWriteDone(ok);
    if (HungryForMore()) service_->Wake(job_id_);
  }
  void OnCancel() override { Abort(absl::CancelledError("the client went away")); }
  void OnDone() override { service_->Forget(this); }

 private:
  JobService* const service_;
  const std::string job_id_;
  const bool until_now_;
  uint64_t sequence_;  // of the last event handed to the stream
  std::atomic<bool> more_{false};
  std::atomic<int64_t> last_progress_us_{absl::ToUnixMicros(MonotonicNow())};
  StreamSender<v1::JobEvent> sender_;
};

JobService::JobService(Coordinator* coordinator, JobServiceOptions options)
    : coordinator_(coordinator), options_(options) {
  coordinator_->store()->SetListener([this](const std::string& job_id) { Wake(job_id); });
  feeder_ = StartThread("job-watch", [this] { FeedLoop(); });
}

JobService::~JobService() {
  Stop();
  coordinator_->store()->SetListener(nullptr);
}

void JobService::Stop() {
  std::vector<std::shared_ptr<Watcher>> watchers;
  {
    MutexLock lock(&mutex_);
    stopped_ = true;
    changed_.NotifyAll();
    for (const auto& [key, watcher] : watchers_) watchers.push_back(watcher);
  }
  feeder_.Join();
  for (const auto& watcher : watchers) {
    watcher->Abort(absl::UnavailableError("the coordinator stops; watch again when it is back"));
  }
}

grpc::Status JobService::Validate(grpc::ServerContext*, const v1::ValidateRequest* request,
                                  v1::ValidateResponse* response) {
  if (request->file_name().size() > kMaxFileNameBytes) {
    return ToGrpc(absl::InvalidArgumentError(
        absl::StrCat("file_name: want at most ", kMaxFileNameBytes, " bytes, got ", request->file_name().size())));
  }
  if (request->overrides_size() > kMaxOverrides) {
    return ToGrpc(absl::InvalidArgumentError(
        absl::StrCat("overrides: want at most ", kMaxOverrides, ", got ", request->overrides_size())));
  }
  const std::vector<std::string> overrides(request->overrides().begin(), request->overrides().end());
  const absl::StatusOr<ResolvedSpec> spec =
      ResolveSpec(request->spec_yaml(), request->file_name().empty() ? "spec" : request->file_name(), overrides);
  if (!spec.ok()) {
    if (!absl::IsInvalidArgument(spec.status())) return ToGrpc(spec.status());
    const std::vector<std::string> errors = absl::StrSplit(spec.status().message(), '\n');
    const int shown = std::min<int>(errors.size(), kMaxSpecErrors);
    response->mutable_errors()->Add(errors.begin(), errors.begin() + shown);
    if (shown < static_cast<int>(errors.size())) {
      response->add_errors(absl::StrCat("and ", errors.size() - shown, " more mistakes"));
    }
    return grpc::Status::OK;
  }
  *response->mutable_given() = spec->given;
  response->set_effective_yaml(SpecToYaml(spec->effective));
  response->set_spec_digest(SpecDigest(spec->effective));
  return grpc::Status::OK;
}

grpc::Status JobService::Submit(grpc::ServerContext*, const v1::SubmitRequest* request, v1::SubmitResponse* response) {
  const absl::StatusOr<NewJob> job = CheckSubmission(*request, options_.data);
  if (!job.ok()) return ToGrpc(job.status());
  const absl::StatusOr<JobStore::Submission> submission = coordinator_->Submit(*job);
  if (!submission.ok()) return ToGrpc(submission.status());
  response->set_job_id(submission->job_id);
  response->set_existed(submission->existed);
  if (!submission->existed) LogInfo("job submitted", {{"job", submission->job_id}, {"digest", job->spec_digest}});
  return grpc::Status::OK;
}

grpc::Status JobService::List(grpc::ServerContext*, const v1::ListRequest* request, v1::ListResponse* response) {
  if (request->limit() < 0 || request->limit() > kMaxListed) {
    return ToGrpc(
        absl::InvalidArgumentError(absl::StrCat("limit: want 0 to ", kMaxListed, ", got ", request->limit())));
  }
  const auto jobs = coordinator_->store()->List(request->limit() == 0 ? kDefaultListed : request->limit());
  if (!jobs.ok()) return ToGrpc(jobs.status());
  for (const JobRecord& job : *jobs) *response->add_jobs() = SummaryMessage(job);
  return grpc::Status::OK;
}

grpc::Status JobService::Describe(grpc::ServerContext*, const v1::DescribeRequest* request,
                                  v1::DescribeResponse* response) {
  absl::StatusOr<v1::DescribeResponse> described = DescribeJob(coordinator_, request->job_id());
  if (!described.ok()) return ToGrpc(described.status());
  *response = *std::move(described);
  return grpc::Status::OK;
}

grpc::Status JobService::Cancel(grpc::ServerContext*, const v1::CancelRequest* request, v1::CancelResponse*) {
  return ToGrpc(coordinator_->Cancel(request->job_id()));
}

grpc::Status JobService::Resume(grpc::ServerContext*, const v1::ResumeRequest* request, v1::ResumeResponse* response) {
  const absl::Status status = coordinator_->Resume(request->job_id());
  if (!status.ok()) return ToGrpc(status);
  const absl::StatusOr<JobRecord> job = coordinator_->store()->Get(request->job_id());
  if (job.ok()) response->set_last_checkpoint(job->last_checkpoint);
  return grpc::Status::OK;
}

grpc::Status JobService::Pause(grpc::ServerContext*, const v1::PauseRequest* request, v1::PauseResponse*) {
  return ToGrpc(coordinator_->Pause(request->job_id()));
}

grpc::Status JobService::Kill(grpc::ServerContext*, const v1::KillRequest* request, v1::KillResponse* response) {
  const absl::Status status = coordinator_->Kill(request->job_id());
  if (!status.ok()) return ToGrpc(status);
  const absl::StatusOr<JobRecord> job = coordinator_->store()->Get(request->job_id());
  if (job.ok()) response->set_last_checkpoint(job->last_checkpoint);
  return grpc::Status::OK;
}

grpc::Status JobService::Delete(grpc::ServerContext*, const v1::DeleteRequest* request, v1::DeleteResponse* response) {
  return ToGrpc(DeleteJob(*request, response));
}

absl::Status JobService::DeleteJob(const v1::DeleteRequest& request, v1::DeleteResponse* response) {
  JobStore* const store = coordinator_->store();
  SLUICE_ASSIGN_OR_RETURN(const JobRecord job, store->Get(request.job_id()));
  response->set_run_folder(job.run_folder);
  if (request.files()) SLUICE_RETURN_IF_ERROR(CheckUnused(job.run_folder, store, job.id));
  SLUICE_RETURN_IF_ERROR(store->Delete(job.id));
  LogInfo("job deleted", {{"job", job.id}, {"files", request.files()}});
  if (!request.files()) return absl::OkStatus();
  absl::Status status = RemoveAll(job.run_folder);
  if (status.ok()) status = DropForkCopy(job.fork_checkpoint);
  if (status.ok()) return status;
  return Annotate(status, absl::StrCat("the job is deleted, and its folder '", job.run_folder,
                                       "' could not be removed; remove it by hand"));
}

absl::Status JobService::DropForkCopy(const std::string& copy) {
  if (copy.empty()) return absl::OkStatus();
  SLUICE_ASSIGN_OR_RETURN(const int others, coordinator_->store()->CountForksOf(copy));
  return others > 0 ? absl::OkStatus() : RemoveAll(copy);
}

grpc::Status JobService::Fork(grpc::ServerContext*, const v1::ForkRequest* request, v1::ForkResponse* response) {
  return ToGrpc(ForkJob(*request, response));
}

absl::Status JobService::ForkJob(const v1::ForkRequest& request, v1::ForkResponse* response) {
  SLUICE_RETURN_IF_ERROR(CheckRequestId(request.request_id()));
  if (request.overrides_size() > kMaxOverrides) {
    return absl::InvalidArgumentError(
        absl::StrCat("overrides: want at most ", kMaxOverrides, ", got ", request.overrides_size()));
  }
  JobStore* const store = coordinator_->store();
  SLUICE_ASSIGN_OR_RETURN(const JobRecord parent, store->Get(request.job_id()));
  // A retry is answered before anything is looked at again: the parent may have gone on.
  if (const absl::StatusOr<JobRecord> made = store->FindRequest(request.request_id()); made.ok()) {
    if (made->forked_from != parent.id) {
      return absl::AlreadyExistsError(absl::StrCat("request id ", request.request_id(), " already names job ", made->id,
                                                   ", which is no fork of ", parent.id, "; choose a new request id"));
    }
    response->set_job_id(made->id);
    response->set_existed(true);
    response->set_checkpoint(made->fork_checkpoint);
    return absl::OkStatus();
  }
  SLUICE_ASSIGN_OR_RETURN(const std::string checkpoint, CheckpointOf(parent, request.checkpoint()));
  const std::string copy = JoinPath(JoinPath(options_.runs_folder, kForks),
                                    absl::StrCat(parent.id, "-", checkpoint.substr(checkpoint.rfind('/') + 1)));
  const std::vector<std::string> overrides(request.overrides().begin(), request.overrides().end());
  v1::SubmitRequest submit;
  SLUICE_ASSIGN_OR_RETURN(*submit.mutable_spec(), ForkSpec(parent, overrides, copy, options_.data));
  submit.set_request_id(request.request_id());
  std::string text = absl::StrCat("# a fork of ", parent.id, " at ", checkpoint, "\n", SpecToYaml(submit.spec()));
  for (const std::string& one : overrides) absl::StrAppend(&text, "# changed: ", one, "\n");
  submit.set_spec_yaml(text);
  SLUICE_ASSIGN_OR_RETURN(NewJob job, CheckSubmission(submit, options_.data));
  job.forked_from = parent.id;
  job.fork_checkpoint = copy;
  SLUICE_RETURN_IF_ERROR(CopyCheckpointModel(checkpoint, copy));
  const absl::StatusOr<JobStore::Submission> submission = coordinator_->Submit(job);
  if (!submission.ok()) {
    const absl::Status dropped = DropForkCopy(copy);
    if (!dropped.ok()) LogWarning("a checkpoint's copy stays", {{"folder", copy}, {"error", dropped.ToString()}});
    return submission.status();
  }
  LogInfo("job forked", {{"job", submission->job_id}, {"from", parent.id}, {"checkpoint", checkpoint}});
  response->set_job_id(submission->job_id);
  response->set_existed(submission->existed);
  response->set_checkpoint(copy);
  return absl::OkStatus();
}

grpc::Status JobService::Plan(grpc::ServerContext*, const v1::PlanRequest* request, v1::PlanResponse* response) {
  AdmissionOptions options;
  options.runs_folder = options_.runs_folder;
  options.reward_address = options_.reward_address;
  options.credentials = options_.credentials;
  options.max_queued = options_.max_queued;
  absl::StatusOr<v1::PlanResponse> plan = PlanAdmission(*request, options, coordinator_, options_.data);
  if (!plan.ok()) return ToGrpc(plan.status());
  *response = *std::move(plan);
  return grpc::Status::OK;
}

grpc::Status JobService::ServerInfo(grpc::ServerContext*, const v1::ServerInfoRequest* request,
                                    v1::ServerInfoResponse* response) {
  response->set_version(std::string(ReleaseVersion()));
  SetTime(absl::Now(), response->mutable_time());
  response->set_host(HostName());
  response->set_runs_folder(options_.runs_folder);
  if (options_.data != nullptr) response->set_data_folder(options_.data->root());
  const CoordinatorSnapshot snapshot = coordinator_->Snapshot();
  response->set_epoch(snapshot.epoch);
  response->set_ranks(coordinator_->options().ranks);
  for (size_t i = 0; i < snapshot.members.size(); ++i) {
    const int rank = static_cast<int>(i) < snapshot.world_size ? static_cast<int>(i) : -1;
    *response->add_members() = MemberMessage(snapshot.members[i], rank, snapshot.now);
  }
  response->set_group_reason(snapshot.reason);
  response->set_draining(snapshot.drain);
  response->set_running_job(snapshot.job_id);
  const absl::StatusOr<std::vector<JobRecord>> unfinished = coordinator_->store()->Unfinished();
  if (!unfinished.ok()) return ToGrpc(unfinished.status());
  const auto running = std::count_if(unfinished->begin(), unfinished->end(),
                                     [](const JobRecord& job) { return job.state == JobState::kRunning; });
  response->set_running(static_cast<int>(running));
  response->set_queued(static_cast<int>(unfinished->size()) - static_cast<int>(running));
  const absl::StatusOr<std::vector<JobRecord>> paused = coordinator_->store()->Paused();
  if (!paused.ok()) return ToGrpc(paused.status());
  response->set_paused(static_cast<int>(paused->size()));
  const StorageFacts facts = LookAtStorage(options_.runs_folder);
  response->set_free_bytes(facts.free_bytes);
  response->set_total_bytes(facts.total_bytes);
  response->set_shm_bytes(facts.shm_bytes);
  if (!request->check_storage()) return grpc::Status::OK;
  v1::PlanCheck* storage = response->add_checks();
  storage->set_name("storage");
  const absl::Status tried = TryStorage(options_.runs_folder);
  storage->set_result(tried.ok() ? v1::PlanCheck::RESULT_OK : v1::PlanCheck::RESULT_FAILED);
  storage->set_message(tried.ok() ? absl::StrCat(options_.runs_folder, " takes writes, fsync and renames")
                                  : std::string(tried.message()));
  v1::PlanCheck* reward = response->add_checks();
  reward->set_name("reward");
  if (options_.reward_address.empty()) {
    reward->set_result(v1::PlanCheck::RESULT_SKIPPED);
    reward->set_message("the coordinator does not know the reward server; start it with --reward HOST:PORT");
    return grpc::Status::OK;
  }
  const absl::StatusOr<std::string> said =
      CheckReward({.address = options_.reward_address, .credentials = options_.credentials});
  reward->set_result(said.ok() ? v1::PlanCheck::RESULT_OK : v1::PlanCheck::RESULT_FAILED);
  reward->set_message(said.ok() ? *said : std::string(said.status().message()));
  return grpc::Status::OK;
}

grpc::Status JobService::ListArtifacts(grpc::ServerContext*, const v1::ListArtifactsRequest* request,
                                       v1::ListArtifactsResponse* response) {
  const absl::StatusOr<JobRecord> job = coordinator_->store()->Get(request->job_id());
  if (!job.ok()) return ToGrpc(job.status());
  const absl::StatusOr<ArtifactList> list = sluice::learner::ListArtifacts(job->run_folder, kMaxArtifacts);
  if (!list.ok()) return ToGrpc(list.status());
  response->set_run_folder(job->run_folder);
  response->set_truncated(list->truncated);
  for (const ArtifactFile& file : list->files) {
    v1::Artifact* artifact = response->add_artifacts();
    artifact->set_path(file.path);
    artifact->set_bytes(file.bytes);
    SetTime(file.modified, artifact->mutable_modified());
  }
  return grpc::Status::OK;
}

grpc::Status JobService::ReadArtifact(grpc::ServerContext*, const v1::ReadArtifactRequest* request,
                                      v1::ReadArtifactResponse* response) {
  if (request->max_bytes() > kMaxPieceBytes) {
    return ToGrpc(absl::InvalidArgumentError(
        absl::StrCat("max_bytes: want at most ", kMaxPieceBytes, ", got ", request->max_bytes())));
  }
  const absl::StatusOr<JobRecord> job = coordinator_->store()->Get(request->job_id());
  if (!job.ok()) return ToGrpc(job.status());
  ArtifactRange range;
  range.offset = request->offset();
  if (request->max_bytes() > 0) range.max_bytes = request->max_bytes();
  range.identity = request->identity();
  range.digest = request->digest();
  absl::StatusOr<ArtifactPiece> piece = sluice::learner::ReadArtifact(job->run_folder, request->path(), range);
  if (!piece.ok()) return ToGrpc(piece.status());
  response->set_chunk_sha256(Sha256(piece->data));
  response->set_data(std::move(piece->data));
  response->set_total_bytes(piece->total_bytes);
  response->set_identity(piece->identity);
  response->set_sha256(piece->sha256);
  return grpc::Status::OK;
}

grpc::Status JobService::Trace(grpc::ServerContext*, const v1::TraceRequest* request, v1::TraceResponse* response) {
  absl::StatusOr<v1::TraceResponse> traced = TraceJob(*request, coordinator_->store());
  if (!traced.ok()) return ToGrpc(traced.status());
  *response = *std::move(traced);
  return grpc::Status::OK;
}

grpc::Status JobService::Compare(grpc::ServerContext*, const v1::CompareRequest* request,
                                 v1::CompareResponse* response) {
  absl::StatusOr<v1::CompareResponse> compared = CompareJobs(*request, coordinator_->store());
  if (!compared.ok()) return ToGrpc(compared.status());
  *response = *std::move(compared);
  return grpc::Status::OK;
}

grpc::ServerWriteReactor<v1::JobEvent>* JobService::Watch(grpc::CallbackServerContext*,
                                                          const v1::WatchRequest* request) {
  auto watcher = std::make_shared<Watcher>(this, *request);
  Watcher* const reactor = watcher.get();
  absl::Status refused = absl::OkStatus();
  {
    MutexLock lock(&mutex_);
    if (stopped_) {
      refused = absl::UnavailableError("the coordinator stops; watch again when it is back");
    } else if (static_cast<int>(watchers_.size()) >= options_.max_watchers) {
      refused = absl::ResourceExhaustedError(absl::StrCat(watchers_.size(), " streams watch jobs already"));
    }
    watchers_[reactor] = std::move(watcher);
    dirty_.insert(reactor->job_id());
    changed_.NotifyAll();
  }
  if (!refused.ok()) reactor->Close(refused);
  return reactor;
}

void JobService::Forget(const Watcher* watcher) {
  std::shared_ptr<Watcher> last;  // destroyed outside the lock
  MutexLock lock(&mutex_);
  const auto found = watchers_.find(watcher);
  if (found == watchers_.end()) return;
  last = std::move(found->second);
  watchers_.erase(found);
}

void JobService::Wake(const std::string& job_id) {
  MutexLock lock(&mutex_);
  if (watchers_.empty()) return;
  dirty_.insert(job_id);
  changed_.NotifyAll();
}

void JobService::FeedLoop() {
  while (true) {
    std::vector<std::shared_ptr<Watcher>> due;
    std::vector<std::shared_ptr<Watcher>> stuck;
    {
      MutexLock lock(&mutex_);
      if (!stopped_ && dirty_.empty()) changed_.WaitFor(&mutex_, kFeedInterval);
      if (stopped_) return;
      const absl::Time oldest = MonotonicNow() - options_.watcher_patience;
      for (const auto& [key, watcher] : watchers_) {
        if (dirty_.count(watcher->job_id()) > 0) due.push_back(watcher);
        if (watcher->room() == 0 && watcher->last_progress() < oldest) stuck.push_back(watcher);
      }
      dirty_.clear();
    }
    for (const auto& watcher : due) Feed(watcher.get());
    for (const auto& watcher : stuck) {
      watcher->Abort(absl::UnavailableError("the reader takes no events; watch again from its last sequence"));
    }
  }
}

void JobService::Feed(Watcher* watcher) {
  watcher->SetMore(false);
  const int room = static_cast<int>(watcher->room());
  // The state first: if it is terminal, the events read after it include the last one.
  const absl::StatusOr<JobRecord> job = coordinator_->store()->Get(watcher->job_id());
  if (!job.ok()) return watcher->Close(job.status());
  const auto events = coordinator_->store()->Events(watcher->job_id(), watcher->sequence(), room);
  if (!events.ok()) return watcher->Close(events.status());
  for (const JobEvent& event : *events) {
    if (!watcher->Send(ToMessage(event))) return;
  }
  if (static_cast<int>(events->size()) < room) {
    if (IsTerminal(job->state) || watcher->until_now()) watcher->Close(absl::OkStatus());
    return;
  }
  // First the mark, then the look: a write that ends in between sees the mark, one that ended before is seen here.
  watcher->SetMore(true);
  if (watcher->HungryForMore()) Wake(watcher->job_id());
}

}  // namespace sluice::learner
