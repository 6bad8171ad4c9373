#include "learner/rpc/job_service.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "common/log/log.h"
#include "common/rpc/status.h"
#include "common/rpc/stream_sender.h"
#include "common/spec/spec.h"
#include "common/status/status.h"
#include "common/time/clock.h"
#include "learner/rpc/job_messages.h"

namespace sluice::learner {
namespace {

constexpr size_t kMaxRequestIdBytes = 128;
constexpr int kDefaultListed = 100;
constexpr int kMaxListed = 1000;
constexpr size_t kMaxFileNameBytes = 4096;
constexpr int kMaxOverrides = 1000;
// One spec cannot make an answer of any size; who has mended so many asks again.
constexpr int kMaxSpecErrors = 1000;
// Events handed to a stream at a time; it gets more when half of them are written.
constexpr size_t kStreamEvents = 64;
constexpr absl::Duration kFeedInterval = absl::Seconds(1);

absl::StatusOr<NewJob> CheckSubmission(const v1::SubmitRequest& request) {
  if (request.request_id().empty() || request.request_id().size() > kMaxRequestIdBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("request_id: want 1 to ", kMaxRequestIdBytes, " bytes, got ", request.request_id().size()));
  }
  if (static_cast<int64_t>(request.spec_yaml().size()) > kMaxSpecBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("spec_yaml: want at most ", kMaxSpecBytes, " bytes, got ", request.spec_yaml().size()));
  }
  SLUICE_ASSIGN_OR_RETURN(const v1::JobSpec effective, CompleteSpec(request.spec()));
  NewJob job;
  job.request_id = request.request_id();
  job.name = effective.name();
  job.kind = effective.kind();
  job.spec = effective.SerializeAsString();
  job.spec_yaml = request.spec_yaml();
  job.spec_digest = SpecDigest(effective);
  return job;
}

absl::StatusOr<v1::DescribeResponse> DescribeJob(Coordinator* coordinator, const std::string& job_id) {
  JobStore* store = coordinator->store();
  SLUICE_ASSIGN_OR_RETURN(const JobRecord job, store->Get(job_id));
  SLUICE_ASSIGN_OR_RETURN(const auto metrics, store->LatestMetrics(job_id));
  SLUICE_ASSIGN_OR_RETURN(const auto results, store->Results(job_id));
  v1::DescribeResponse response;
  *response.mutable_summary() = SummaryMessage(job);
  if (!response.mutable_spec()->ParseFromString(job.spec)) {
    return absl::DataLossError(absl::StrCat("the spec of job ", job_id, " cannot be read"));
  }
  response.set_spec_digest(job.spec_digest);
  response.set_run_folder(job.run_folder);
  response.set_last_checkpoint(job.last_checkpoint);
  response.set_policy_version(job.policy_version);
  response.set_epoch(job.epoch);
  *response.mutable_ledger() = ToMessage(job.balance);
  response.mutable_metrics()->insert(metrics.begin(), metrics.end());
  response.mutable_results()->insert(results.begin(), results.end());
  const CoordinatorSnapshot snapshot = coordinator->Snapshot();
  if (snapshot.job_id != job_id) return response;
  for (int rank = 0; rank < snapshot.world_size; ++rank) {
    const Member& member = snapshot.members[rank];
    v1::MemberSummary* summary = response.add_members();
    summary->set_member_id(member.id);
    summary->set_rank(rank);
    summary->set_address(member.address);
    summary->set_phase(member.phase);
    summary->set_heartbeat_age_s(absl::ToDoubleSeconds(snapshot.now - member.last_heard));
    summary->set_actors(member.actors);
  }
  return response;
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
  const absl::StatusOr<NewJob> job = CheckSubmission(*request);
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
