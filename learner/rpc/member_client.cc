#include "learner/rpc/member_client.h"

#include <grpcpp/channel.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/log/log.h"
#include "common/rpc/channel.h"
#include "common/rpc/status.h"
#include "common/status/exit_code.h"
#include "common/status/status.h"
#include "common/time/clock.h"
#include "common/version/version.h"

namespace sluice::learner {
namespace {

constexpr absl::Duration kCallTimeout = absl::Seconds(5);
// One wait at the store; longer ones are made of these.
constexpr absl::Duration kStoreWait = absl::Seconds(4);

v1::JobState OutcomeState(const absl::Status& outcome) {
  switch (ExitCodeFor(outcome)) {
    case ExitCode::kDone:
      return v1::JOB_STATE_SUCCEEDED;
    case ExitCode::kPreempted:
      return v1::JOB_STATE_QUEUED;
    case ExitCode::kCancelled:
      return v1::JOB_STATE_CANCELLED;
    case ExitCode::kHeld:
      return v1::JOB_STATE_HELD;
    default:
      return v1::JOB_STATE_FAILED;
  }
}

// Random enough to keep ranks apart in time; nothing else hangs on it.
uint64_t SeedOf(const std::string& member_id) { return std::hash<std::string>()(member_id); }

}  // namespace

MemberClient::MemberClient(std::shared_ptr<grpc::Channel> channel, MemberClientOptions options)
    : options_(std::move(options)), channel_(std::move(channel)), stub_(v1::MemberService::NewStub(channel_)) {
  heartbeat_.set_member_id(options_.member_id);
  heartbeat_.set_phase("idle");
}

void MemberClient::Start() {
  thread_ = StartThread("heartbeat", [this] {
    while (Wait(RunOnce(), /*until_beat=*/true)) {
    }
  });
}

void MemberClient::Stop() {
  {
    MutexLock lock(&mutex_);
    stopped_ = true;
    changed_.NotifyAll();
  }
  thread_.Join();
}

bool MemberClient::Wait(absl::Duration duration, bool until_beat) {
  const absl::Time until = MonotonicNow() + duration;
  MutexLock lock(&mutex_);
  while (!stopped_ && !(until_beat && beat_now_)) {
    const absl::Duration left = until - MonotonicNow();
    if (left <= absl::ZeroDuration()) return true;
    changed_.WaitFor(&mutex_, left);
  }
  if (until_beat) beat_now_ = false;
  return !stopped_;
}

absl::Status MemberClient::Retry(const std::function<absl::Status(absl::Duration)>& call) {
  Random random(SeedOf(options_.member_id), ++retries_);
  return CallWithRetry(
      options_.retry, MonotonicClock(), [this](absl::Duration wait) { return Wait(wait); }, &random, call);
}

absl::Duration MemberClient::RunOnce() {
  bool joined = false;
  {
    MutexLock lock(&mutex_);
    joined = joined_;
  }
  absl::Status status = joined ? absl::OkStatus() : Join();
  if (status.ok()) status = Beat();
  if (status.code() == absl::StatusCode::kAborted) {
    // The coordinator does not know us (any more): our lease ended, or it lost its memory.
    {
      MutexLock lock(&mutex_);
      joined_ = false;
    }
    status = Join();
    if (status.ok()) status = Beat();
  }
  bool news = false;
  absl::Duration interval;
  {
    MutexLock lock(&mutex_);
    news = reachable_ != status.ok();
    reachable_ = status.ok();
    interval = interval_;
  }
  if (!status.ok()) {
    if (news) {
      if (options_.explain) status = options_.explain(status);
      LogWarning("the coordinator does not answer; this rank goes on as it is", {{"error", status.ToString()}});
    }
    // gRPC waits ever longer between connections; a lease does not.
    grpc::experimental::ChannelResetConnectionBackoff(channel_.get());
  } else if (news) {
    LogInfo("the coordinator answers again");
  }
  return interval;
}

absl::Status MemberClient::Join() {
  v1::JoinRequest request;
  request.set_member_id(options_.member_id);
  request.set_address(options_.address);
  request.set_host(options_.host);
  request.set_version(std::string(ReleaseVersion()));
  v1::JoinResponse response;
  grpc::ClientContext context;
  SetDeadline(&context, kCallTimeout);
  SLUICE_RETURN_IF_ERROR(FromServer(stub_->Join(&context, request, &response)));
  MutexLock lock(&mutex_);
  joined_ = true;
  const absl::Duration interval = absl::Seconds(response.heartbeat_interval_s());
  interval_ = std::clamp(interval, absl::Milliseconds(10), absl::Seconds(60));
  lease_ = std::clamp(absl::Seconds(response.lease_s()), absl::ZeroDuration(), absl::Minutes(10));
  return absl::OkStatus();
}

absl::Status MemberClient::Beat() {
  v1::MemberHeartbeat request;
  std::function<RolloutLoad()> load;
  std::function<void()> release_actor;
  {
    MutexLock lock(&mutex_);
    heartbeat_.set_epoch(view_.epoch);
    heartbeat_.set_job_id(view_.job == nullptr ? "" : view_.job->id);
    request = heartbeat_;
    load = load_;
    release_actor = release_actor_;
  }
  if (load) {
    const RolloutLoad now = load();
    request.set_actors(static_cast<uint32_t>(std::max(0, now.actors)));
    request.set_waiting_blocks(static_cast<uint32_t>(std::max(0, now.waiting_blocks)));
  }
  v1::View response;
  grpc::ClientContext context;
  SetDeadline(&context, kCallTimeout);
  SLUICE_RETURN_IF_ERROR(FromServer(stub_->Heartbeat(&context, request, &response)));
  Take(response);
  if (request.leaving()) {
    MutexLock lock(&mutex_);
    leaving_known_ = true;
    changed_.NotifyAll();
  }
  if (response.release_actor() && release_actor) release_actor();
  return absl::OkStatus();
}

void MemberClient::Take(const v1::View& message) {
  MutexLock lock(&mutex_);
  RankView next = view_;
  next.epoch = message.epoch();
  next.rank = message.epoch() == 0 ? -1 : message.rank();
  next.world_size = message.world_size();
  next.drain = message.drain();
  next.cancel_requested = message.assignment().cancel_requested();
  next.pause_requested = message.assignment().pause_requested();
  if (!message.has_assignment()) {
    next.job = nullptr;
  } else if (next.job == nullptr || next.job->id != message.assignment().job_id()) {
    next.job = std::make_shared<const AssignedJob>(
        AssignedJob{message.assignment().job_id(), message.assignment().spec(), message.assignment().spec_yaml(),
                    message.assignment().run_folder()});
  }
  const bool same = next.epoch == view_.epoch && next.rank == view_.rank && next.world_size == view_.world_size &&
                    next.job == view_.job && next.cancel_requested == view_.cancel_requested &&
                    next.pause_requested == view_.pause_requested && next.drain == view_.drain;
  if (same) return;
  next.generation = view_.generation + 1;
  view_ = std::move(next);
  changed_.NotifyAll();
}

void MemberClient::Leave(const std::string& reason) {
  v1::LeaveRequest request;
  request.set_member_id(options_.member_id);
  request.set_reason(reason);
  v1::LeaveResponse response;
  grpc::ClientContext context;
  SetDeadline(&context, kCallTimeout);
  const absl::Status status = FromServer(stub_->Leave(&context, request, &response));
  if (!status.ok()) LogWarning("could not take leave; the lease will end by itself", {{"error", status.ToString()}});
}

void MemberClient::AnnounceLeaving(absl::Duration timeout) {
  const absl::Time until = MonotonicNow() + timeout;
  MutexLock lock(&mutex_);
  heartbeat_.set_leaving(true);
  beat_now_ = true;
  changed_.NotifyAll();
  while (!leaving_known_ && !stopped_) {
    const absl::Duration left = until - MonotonicNow();
    if (left <= absl::ZeroDuration()) return;
    changed_.WaitFor(&mutex_, left);
  }
}

void MemberClient::SetPhase(const std::string& phase) {
  MutexLock lock(&mutex_);
  heartbeat_.set_phase(phase);
}

void MemberClient::SetProgress(uint64_t step, const LedgerBalance& balance) {
  MutexLock lock(&mutex_);
  heartbeat_.set_step(step);
  v1::LedgerBalance* ledger = heartbeat_.mutable_ledger();
  ledger->set_issued(balance.issued);
  ledger->set_trained(balance.trained);
  ledger->set_dropped(balance.dropped);
  ledger->set_failed(balance.failed);
  ledger->set_cancelled(balance.cancelled);
  ledger->set_open(balance.open);
  ledger->set_frontier(balance.frontier);
}

void MemberClient::SetLoad(std::function<RolloutLoad()> load) {
  MutexLock lock(&mutex_);
  load_ = std::move(load);
}

void MemberClient::SetReleaseActor(std::function<void()> release) {
  MutexLock lock(&mutex_);
  release_actor_ = std::move(release);
}

absl::Duration MemberClient::lease() const {
  MutexLock lock(&mutex_);
  return lease_;
}

RankView MemberClient::view() const {
  MutexLock lock(&mutex_);
  return view_;
}

RankView MemberClient::WaitForChange(uint64_t generation, absl::Duration timeout) {
  const absl::Time until = MonotonicNow() + timeout;
  MutexLock lock(&mutex_);
  while (!stopped_ && view_.generation <= generation) {
    const absl::Duration left = until - MonotonicNow();
    if (left <= absl::ZeroDuration()) break;
    changed_.WaitFor(&mutex_, left);
  }
  return view_;
}

absl::StatusOr<uint64_t> MemberClient::ReserveVersion(const std::string& job_id, uint64_t epoch, uint64_t after) {
  v1::ReserveVersionRequest request;
  request.set_job_id(job_id);
  request.set_epoch(epoch);
  request.set_after(after);
  v1::ReserveVersionResponse response;
  SLUICE_RETURN_IF_ERROR(Retry([&](absl::Duration timeout) {
    grpc::ClientContext context;
    SetDeadline(&context, timeout);
    return FromServer(stub_->ReserveVersion(&context, request, &response));
  }));
  return response.policy_version();
}

absl::Status MemberClient::ReserveOrdinals(const std::string& job_id, uint64_t epoch, uint64_t step, uint64_t first,
                                           uint64_t count) {
  v1::ReserveOrdinalsRequest request;
  request.set_job_id(job_id);
  request.set_epoch(epoch);
  request.set_step(step);
  request.set_first(first);
  request.set_count(count);
  v1::ReserveOrdinalsResponse response;
  return Retry([&](absl::Duration timeout) {
    grpc::ClientContext context;
    SetDeadline(&context, timeout);
    return FromServer(stub_->ReserveOrdinals(&context, request, &response));
  });
}

absl::Status MemberClient::Finish(const std::string& job_id, uint64_t epoch, const absl::Status& outcome) {
  v1::FinishRequest request;
  request.set_job_id(job_id);
  request.set_epoch(epoch);
  request.set_state(OutcomeState(outcome));
  request.set_message(outcome.ok() ? "done" : std::string(outcome.message()));
  request.set_exit_code(static_cast<int>(ExitCodeFor(outcome)));
  v1::FinishResponse response;
  return Retry([&](absl::Duration timeout) {
    grpc::ClientContext context;
    SetDeadline(&context, timeout);
    return FromServer(stub_->Finish(&context, request, &response));
  });
}

absl::StatusOr<bool> MemberClient::SendReport(const v1::JobReport& report, absl::Duration timeout) {
  v1::JobReportResponse response;
  grpc::ClientContext context;
  SetDeadline(&context, timeout);
  SLUICE_RETURN_IF_ERROR(FromServer(stub_->Report(&context, report, &response)));
  return response.cancel_requested();
}

absl::Status MemberClient::RemoteStore::Set(const std::string& key, const std::string& value) {
  v1::StoreSetRequest request;
  request.set_key(key);
  request.set_value(value);
  v1::StoreSetResponse response;
  return client_->Retry([&](absl::Duration timeout) {
    grpc::ClientContext context;
    SetDeadline(&context, timeout);
    return FromServer(client_->stub_->StoreSet(&context, request, &response));
  });
}

absl::StatusOr<std::string> MemberClient::RemoteStore::Get(const std::string& key, absl::Duration timeout) {
  const absl::Time until = MonotonicNow() + timeout;
  while (true) {
    const absl::Duration left = std::max(until - MonotonicNow(), absl::ZeroDuration());
    const absl::Duration wait = std::min(left, kStoreWait);
    v1::StoreGetRequest request;
    request.set_key(key);
    request.set_wait_ms(static_cast<uint32_t>(absl::ToInt64Milliseconds(wait)));
    v1::StoreGetResponse response;
    grpc::ClientContext context;
    SetDeadline(&context, wait + kCallTimeout);
    const absl::Status status = FromServer(client_->stub_->StoreGet(&context, request, &response));
    if (status.ok()) return response.value();
    if (!IsRetryable(status)) return status;
    if (until - MonotonicNow() <= absl::ZeroDuration()) {
      return absl::DeadlineExceededError(
          absl::StrCat(key, ": nothing within ", absl::FormatDuration(timeout), ": ", status.message()));
    }
    // A deadline has waited already; anything else fails at once and must not be asked in a tight loop.
    const bool waited = status.code() == absl::StatusCode::kDeadlineExceeded;
    if (!client_->Wait(waited ? absl::ZeroDuration() : absl::Milliseconds(200))) {
      return absl::CancelledError("this rank stops");
    }
  }
}

absl::StatusOr<int64_t> MemberClient::RemoteStore::Add(const std::string& key, int64_t amount) {
  v1::StoreAddRequest request;
  request.set_key(key);
  request.set_amount(amount);
  v1::StoreAddResponse response;
  SLUICE_RETURN_IF_ERROR(client_->Retry([&](absl::Duration timeout) {
    grpc::ClientContext context;
    SetDeadline(&context, timeout);
    return FromServer(client_->stub_->StoreAdd(&context, request, &response));
  }));
  return response.value();
}

}  // namespace sluice::learner
