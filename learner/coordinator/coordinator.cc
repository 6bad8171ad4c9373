#include "learner/coordinator/coordinator.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/log/log.h"
#include "common/status/exit_code.h"
#include "common/status/status.h"

namespace sluice::learner {
namespace {

// An actor that was sent to a rank counts there for this long even if the rank's heartbeats do not show it yet.
constexpr absl::Duration kAttachCounts = absl::Seconds(5);
// An actor that was sent away needs this many heartbeats to arrive elsewhere; until then no other is moved.
constexpr int kReleaseHeartbeats = 4;
// Epochs whose rendezvous keys are kept, the present one included.
constexpr uint64_t kKeptEpochs = 2;

}  // namespace

absl::Status CoordinatorOptions::Validate() const {
  if (ranks < 1 || ranks > max_members) {
    return absl::InvalidArgumentError(absl::StrCat("ranks: want 1 to ", max_members, ", got ", ranks));
  }
  if (heartbeat_interval <= absl::ZeroDuration() || lease < 2 * heartbeat_interval) {
    return absl::InvalidArgumentError(absl::StrCat("lease: want at least twice the heartbeat interval of ",
                                                   absl::FormatDuration(heartbeat_interval), ", got ",
                                                   absl::FormatDuration(lease)));
  }
  return absl::OkStatus();
}

Coordinator::Coordinator(CoordinatorOptions options, JobStore* store, NowFunction now, NowFunction wall)
    : options_(options), store_(store), now_(std::move(now)), wall_(std::move(wall)), last_tick_(now_()) {}

absl::StatusOr<std::unique_ptr<Coordinator>> Coordinator::Create(CoordinatorOptions options, JobStore* store,
                                                                 NowFunction now, NowFunction wall) {
  SLUICE_RETURN_IF_ERROR(options.Validate());
  std::unique_ptr<Coordinator> coordinator(new Coordinator(options, store, std::move(now), std::move(wall)));
  SLUICE_RETURN_IF_ERROR(coordinator->Restore());
  return coordinator;
}

absl::Status Coordinator::Restore() {
  SLUICE_ASSIGN_OR_RETURN(const std::vector<JobRecord> unfinished, store_->Unfinished());
  SLUICE_ASSIGN_OR_RETURN(const StoredGroup group, store_->LatestGroup());
  MutexLock lock(&mutex_);
  for (const JobRecord& job : unfinished) {
    if (job.state != JobState::kRunning) continue;
    SLUICE_ASSIGN_OR_RETURN(JobRecord running, store_->Get(job.id));
    wish_ = running.wish;
    job_ = std::make_shared<const JobRecord>(std::move(running));
    break;
  }
  if (group.members.empty()) return absl::OkStatus();
  const bool worth_waiting =
      job_ != nullptr && job_->epoch == group.epoch && static_cast<int>(group.members.size()) == options_.ranks;
  if (!worth_waiting) return store_->ForgetGroup();
  epoch_ = group.epoch;
  reason_ = absl::StrCat("waiting for the members of epoch ", epoch_, " to be heard again");
  for (const StoredMember& stored : group.members) {
    Member member;
    member.id = stored.id;
    member.address = stored.address;
    member.host = stored.host;
    member.last_heard = now_();
    member.lease_until = now_() + 2 * options_.lease;  // they must find the way back first
    member.phase = "not heard of since the coordinator started";
    members_.push_back(member);
    group_.push_back(stored.id);
  }
  LogInfo("took up the group of the last run", {{"epoch", epoch_}, {"job", job_->id}});
  return absl::OkStatus();
}

Member* Coordinator::FindLocked(const std::string& member_id) {
  for (Member& member : members_) {
    if (member.id == member_id) return &member;
  }
  return nullptr;
}

absl::Status Coordinator::Join(const std::string& member_id, const std::string& address, const std::string& host,
                               const std::string& version) {
  if (member_id.empty() || member_id.size() > 128) {
    return absl::InvalidArgumentError(absl::StrCat("member_id: want 1 to 128 bytes, got ", member_id.size()));
  }
  MutexLock lock(&mutex_);
  Member* member = FindLocked(member_id);
  if (member == nullptr) {
    if (static_cast<int>(members_.size()) >= options_.max_members) {
      return absl::ResourceExhaustedError(absl::StrCat("there are ", members_.size(), " members already"));
    }
    members_.emplace_back();
    member = &members_.back();
    member->id = member_id;
    member->phase = "joined";
    LogInfo("member joined", {{"member", member_id}, {"address", address}});
  }
  member->address = address;
  member->host = host;
  member->version = version;
  member->last_heard = now_();
  member->lease_until = now_() + options_.lease;
  return RefreshLocked();
}

absl::StatusOr<GroupView> Coordinator::Beat(const Heartbeat& heartbeat) {
  MutexLock lock(&mutex_);
  Member* member = FindLocked(heartbeat.member_id);
  if (member == nullptr) {
    return absl::AbortedError(absl::StrCat("member ", heartbeat.member_id, " is not known here; join again"));
  }
  member->last_heard = now_();
  member->lease_until = now_() + options_.lease;
  member->phase = heartbeat.phase;
  // Who is counted by the rank itself is no longer on its way.
  const size_t arrived = heartbeat.actors > member->actors ? heartbeat.actors - member->actors : 0;
  auto& attached = member->attached;
  attached.erase(attached.begin(), attached.begin() + static_cast<ptrdiff_t>(std::min(arrived, attached.size())));
  member->actors = heartbeat.actors;
  member->waiting_blocks = heartbeat.waiting_blocks;
  member->step = heartbeat.step;
  if (heartbeat.leaving && !member->leaving) LogInfo("member is leaving", {{"member", member->id}});
  member->leaving = heartbeat.leaving;
  member->balance = heartbeat.balance;
  SLUICE_RETURN_IF_ERROR(RefreshLocked());
  GroupView view = ViewLocked(heartbeat.member_id);
  view.release_actor = ReleasesActorLocked(heartbeat.member_id);
  return view;
}

uint32_t Coordinator::ActorsLocked(Member* member) {
  const absl::Time now = now_();
  auto& attached = member->attached;
  attached.erase(
      std::remove_if(attached.begin(), attached.end(), [now](absl::Time time) { return time + kAttachCounts <= now; }),
      attached.end());
  return member->actors + static_cast<uint32_t>(attached.size());
}

bool Coordinator::ReleasesActorLocked(const std::string& member_id) {
  if (epoch_ == 0 || job_ == nullptr || now_() - last_release_ < kReleaseHeartbeats * options_.heartbeat_interval) {
    return false;
  }
  std::vector<RankLoad> loads;
  for (const std::string& id : group_) {
    Member* member = FindLocked(id);
    if (member == nullptr) return false;
    loads.push_back({ActorsLocked(member), member->waiting_blocks});
  }
  const RankChoice choice = ChooseDonor(loads);
  if (choice.rank < 0 || group_[choice.rank] != member_id) return false;
  last_release_ = now_();
  LogInfo("an actor is to change its rank", {{"from", choice.rank}, {"reason", choice.reason}});
  return true;
}

GroupView Coordinator::ViewLocked(const std::string& member_id) const {
  GroupView view;
  view.drain = drain_;
  const auto found = std::find(group_.begin(), group_.end(), member_id);
  if (epoch_ == 0 || found == group_.end()) return view;
  view.epoch = epoch_;
  view.rank = static_cast<int>(found - group_.begin());
  view.world_size = static_cast<int>(group_.size());
  view.job = job_;
  if (job_ != nullptr) view.wish = wish_;
  return view;
}

void Coordinator::Leave(const std::string& member_id, const std::string& reason) {
  MutexLock lock(&mutex_);
  const Member* const member = FindLocked(member_id);
  if (member == nullptr) return;
  // One that leaves a broken group to form it anew is not what broke it.
  TellGoneLocked(*member, absl::StrCat("left the group: ", reason), LineCause::kPeer);
  members_.erase(members_.begin() + (member - members_.data()));
  LogInfo("member left", {{"member", member_id}, {"reason", reason}});
  const absl::Status status = RefreshLocked();
  if (!status.ok()) LogError("could not form the group anew", {{"error", status.ToString()}});
}

void Coordinator::TellGoneLocked(const Member& member, const std::string& what, LineCause cause) {
  const auto found = std::find(group_.begin(), group_.end(), member.id);
  if (found == group_.end()) return;
  TellLocked("warning",
             absl::StrCat("rank ", found - group_.begin(), " (", member.host, ", ", member.address, ") ", what), cause);
}

void Coordinator::ExpireLocked() {
  const absl::Time now = now_();
  // After a pause of this process (a suspended machine, a slow disk) the members' heartbeats still wait to be read.
  // The pause is ours, so it does not count against their leases.
  const absl::Duration pause = now - last_tick_;
  last_tick_ = now;
  if (pause > options_.lease / 2) {
    for (Member& member : members_) member.lease_until = std::max(member.lease_until, now + options_.lease / 2);
    return;
  }
  for (const Member& member : members_) {
    if (member.lease_until > now) continue;
    LogWarning("member lost: no heartbeat within its lease",
               {{"member", member.id}, {"silent_s", absl::ToDoubleSeconds(now - member.last_heard)}});
    TellGoneLocked(member,
                   absl::StrFormat("was lost: no heartbeat for %.1f s; its process died, its machine stopped, or "
                                   "the network between broke",
                                   absl::ToDoubleSeconds(now - member.last_heard)),
                   LineCause::kOwn);
  }
  members_.erase(std::remove_if(members_.begin(), members_.end(),
                                [now](const Member& member) { return member.lease_until <= now; }),
                 members_.end());
}

void Coordinator::Tick() {
  MutexLock lock(&mutex_);
  ExpireLocked();
  const absl::Status status = RefreshLocked();
  if (!status.ok()) LogError("could not form the group or assign a job", {{"error", status.ToString()}});
}

absl::Status Coordinator::RefreshLocked() {
  const bool busy = job_ != nullptr && job_->epoch == epoch_;
  const GroupDecision decision = DecideGroup(members_, group_, options_.ranks, busy);
  if (decision.kind == GroupDecision::Kind::kForm) {
    SLUICE_RETURN_IF_ERROR(FormLocked(decision));
  } else if (decision.kind == GroupDecision::Kind::kLost) {
    LogWarning("group lost", {{"epoch", epoch_}, {"reason", decision.reason}});
    SLUICE_RETURN_IF_ERROR(store_->ForgetGroup());
    epoch_ = 0;
    group_.clear();
  }
  if (epoch_ == 0 || decision.kind != GroupDecision::Kind::kKeep) reason_ = decision.reason;
  return AssignLocked();
}

absl::Status Coordinator::FormLocked(const GroupDecision& decision) {
  std::vector<StoredMember> stored;
  std::vector<std::string> ids;
  for (const size_t index : decision.members) {
    const Member& member = members_[index];
    stored.push_back({member.id, member.address, member.host});
    ids.push_back(member.id);
  }
  SLUICE_ASSIGN_OR_RETURN(const uint64_t epoch, store_->ReserveEpoch(stored));
  epoch_ = epoch;
  group_ = std::move(ids);
  if (epoch > kKeptEpochs) kv_.ForgetPrefix(absl::StrCat("epoch/", epoch - kKeptEpochs, "/"));
  LogInfo("group formed", {{"epoch", epoch_}, {"ranks", static_cast<int>(group_.size())}, {"reason", decision.reason}});
  return absl::OkStatus();
}

absl::Status Coordinator::FormAgainLocked() {
  GroupDecision decision;
  decision.kind = GroupDecision::Kind::kForm;
  decision.reason = "the next job had been assigned in this epoch before";
  for (const std::string& id : group_) {
    const Member* member = FindLocked(id);
    if (member == nullptr) return absl::UnavailableError(absl::StrCat("member ", id, " is gone; the group forms anew"));
    decision.members.push_back(static_cast<size_t>(member - members_.data()));
  }
  return FormLocked(decision);
}

absl::Status Coordinator::AssignLocked() {
  if (job_ != nullptr && epoch_ != 0 && job_->epoch != epoch_) SLUICE_RETURN_IF_ERROR(TakeUpLocked());
  if (epoch_ == 0 || drain_ || job_ != nullptr || !queue_changed_) return absl::OkStatus();
  SLUICE_ASSIGN_OR_RETURN(const std::vector<JobRecord> waiting, store_->Unfinished());
  if (!waiting.empty()) {
    // Ranks know an assignment, and we its late reports, by job and epoch.
    if (waiting.front().epoch == epoch_) SLUICE_RETURN_IF_ERROR(FormAgainLocked());
    SLUICE_ASSIGN_OR_RETURN(JobRecord job, store_->Assign(waiting.front().id, epoch_, "", wall_()));
    LogInfo("job assigned", {{"job", job.id}, {"epoch", epoch_}});
    wish_ = job.wish;
    job_ = std::make_shared<const JobRecord>(std::move(job));
  }
  queue_changed_ = false;
  return absl::OkStatus();
}

void Coordinator::QueueChangedLocked() {
  queue_changed_ = true;
  const absl::Status status = RefreshLocked();
  if (!status.ok()) LogError("could not assign a job", {{"error", status.ToString()}});
}

// The group of the running job was lost; another one has formed.
absl::Status Coordinator::TakeUpLocked() {
  SLUICE_ASSIGN_OR_RETURN(const JobRecord current, store_->Get(job_->id));
  if (current.lost_groups + 1 >= options_.max_lost_groups) {
    const std::string message = absl::StrCat("the learner group was lost ", current.lost_groups + 1,
                                             " times without one step in between; the ranks' logs say what ended them");
    SLUICE_RETURN_IF_ERROR(
        store_->Apply(job_->id, JobInput::kFail, message, static_cast<int>(ExitCode::kTransient), wall_()).status());
    LogError("job failed", {{"job", job_->id}, {"message", message}});
    job_ = nullptr;
    queue_changed_ = true;
    return absl::OkStatus();
  }
  const std::string message = absl::StrCat("the learner group was lost; epoch ", epoch_, " goes on from ",
                                           current.last_checkpoint.empty() ? "the start" : current.last_checkpoint);
  SLUICE_ASSIGN_OR_RETURN(JobRecord job, store_->Assign(job_->id, epoch_, message, wall_()));
  LogInfo("job taken up again", {{"job", job.id}, {"epoch", epoch_}});
  wish_ = job.wish;
  job_ = std::make_shared<const JobRecord>(std::move(job));
  return absl::OkStatus();
}

absl::StatusOr<bool> Coordinator::Report(const std::string& job_id, const JobReport& report) {
  return store_->Report(job_id, report, wall_());
}

absl::Status Coordinator::Finish(const std::string& job_id, uint64_t epoch, JobInput outcome,
                                 const std::string& message, int exit_code) {
  MutexLock lock(&mutex_);
  if (job_ == nullptr || job_->id != job_id) {
    SLUICE_ASSIGN_OR_RETURN(const JobRecord job, store_->Get(job_id));
    const JobTransition repeated = Decide(job.state, job.wish, outcome);
    if (job.epoch == epoch && repeated.allowed && !repeated.changed) return absl::OkStatus();
    return absl::AbortedError(absl::StrCat("job ", job_id, " does not run; it is ", JobStateName(job.state)));
  }
  if (epoch != epoch_ || epoch != job_->epoch) {
    return absl::AbortedError(
        absl::StrCat("job ", job_id, ": epoch ", epoch, " is over, now it is ", epoch_, "; join again"));
  }
  SLUICE_ASSIGN_OR_RETURN(const JobRecord job, store_->Apply(job_id, outcome, message, exit_code, wall_()));
  LogInfo("job left the group",
          {{"job", job_id}, {"state", std::string(JobStateName(job.state))}, {"message", job.message}});
  job_ = nullptr;
  wish_ = JobWish::kNone;
  queue_changed_ = true;
  return RefreshLocked();  // a member that is leaving is not in the group that takes the next job
}

absl::StatusOr<uint64_t> Coordinator::ReserveVersion(const std::string& job_id, uint64_t epoch, uint64_t after) {
  MutexLock lock(&mutex_);
  const Reservation& last = reservation_;
  // Without a version before it, a second call is not told from a retry.
  if (after > 0 && last.job_id == job_id && last.epoch == epoch && last.after == after) return last.version;
  SLUICE_ASSIGN_OR_RETURN(const uint64_t version, store_->ReserveVersion(job_id, epoch, after));
  reservation_ = {job_id, epoch, after, version};
  return version;
}

absl::Status Coordinator::ReserveOrdinals(const std::string& job_id, uint64_t epoch, uint64_t step, uint64_t first,
                                          uint64_t count) {
  return store_->ReserveOrdinals(job_id, epoch, step, first, count);
}

absl::StatusOr<std::string> Coordinator::AttachActor(const std::string& actor_id,
                                                     const std::vector<std::string>& avoid) {
  MutexLock lock(&mutex_);
  std::vector<uint32_t> actors;
  std::vector<std::string> addresses;
  for (const std::string& id : group_) {
    Member* member = FindLocked(id);
    if (member == nullptr) continue;
    actors.push_back(ActorsLocked(member));
    addresses.push_back(member->address);
  }
  const RankChoice choice = ChooseRank(actors, addresses, avoid);
  if (choice.rank < 0) return absl::UnavailableError(absl::StrCat(choice.reason, ": ", reason_, "; try again"));
  FindLocked(group_[choice.rank])->attached.push_back(now_());
  LogInfo("actor attached", {{"actor", actor_id}, {"address", addresses[choice.rank]}, {"reason", choice.reason}});
  return addresses[choice.rank];
}

absl::StatusOr<JobStore::Submission> Coordinator::Submit(const NewJob& job) {
  SLUICE_ASSIGN_OR_RETURN(JobStore::Submission submission, store_->Submit(job, wall_()));
  if (submission.existed) return submission;
  MutexLock lock(&mutex_);
  QueueChangedLocked();
  return submission;
}

absl::Status Coordinator::Cancel(const std::string& job_id) {
  return Stop(job_id, JobInput::kCancel, JobInput::kCancelled, "cancelled while no learner was there",
              static_cast<int>(ExitCode::kCancelled));
}

absl::Status Coordinator::Pause(const std::string& job_id) {
  return Stop(job_id, JobInput::kPause, JobInput::kPreempt, "paused while no learner was there", 0);
}

absl::Status Coordinator::Stop(const std::string& job_id, JobInput wish, JobInput outcome, const std::string& alone,
                               int exit_code) {
  MutexLock lock(&mutex_);
  const bool running = job_ != nullptr && job_->id == job_id;
  SLUICE_ASSIGN_OR_RETURN(const JobRecord job, store_->Apply(job_id, wish, "", exit_code, wall_()));
  if (!running) {
    queue_changed_ = true;
    return absl::OkStatus();
  }
  wish_ = job.wish;
  if (epoch_ != 0) return absl::OkStatus();
  SLUICE_RETURN_IF_ERROR(store_->Apply(job_id, outcome, alone, exit_code, wall_()).status());
  TakeAwayLocked();
  return absl::OkStatus();
}

void Coordinator::TakeAwayLocked() {
  job_ = nullptr;
  wish_ = JobWish::kNone;
  QueueChangedLocked();
}

absl::Status Coordinator::Kill(const std::string& job_id) {
  MutexLock lock(&mutex_);
  SLUICE_ASSIGN_OR_RETURN(const JobRecord job,
                          store_->Apply(job_id, JobInput::kKill, "", static_cast<int>(ExitCode::kCancelled), wall_()));
  LogInfo("job killed", {{"job", job.id}, {"checkpoint", job.last_checkpoint}});
  if (job_ == nullptr || job_->id != job_id) {
    queue_changed_ = true;
    return absl::OkStatus();
  }
  // Its ranks see that the group has no such job any more, and abandon what they wait for.
  TakeAwayLocked();
  return absl::OkStatus();
}

absl::Status Coordinator::Resume(const std::string& job_id) {
  MutexLock lock(&mutex_);
  SLUICE_ASSIGN_OR_RETURN(const JobRecord job, store_->Apply(job_id, JobInput::kResume, "", 0, wall_()));
  LogInfo("job resumed", {{"job", job.id}, {"checkpoint", job.last_checkpoint}});
  if (job_ != nullptr && job_->id == job_id) wish_ = job.wish;  // a pause is withdrawn
  QueueChangedLocked();
  return absl::OkStatus();
}

void Coordinator::TellLocked(const std::string& level, const std::string& text, LineCause cause) {
  if (job_ == nullptr) return;
  const absl::Status status = store_->Append(job_->id, {level, text, "coordinator", -1, cause}, wall_());
  if (!status.ok()) LogWarning("a line of the job was not kept", {{"job", job_->id}, {"error", status.ToString()}});
}

void Coordinator::Drain() {
  MutexLock lock(&mutex_);
  if (!drain_) LogInfo("draining: the running job stops after a checkpoint, none is assigned");
  drain_ = true;
}

bool Coordinator::Drained() const {
  MutexLock lock(&mutex_);
  return drain_ && (job_ == nullptr || epoch_ == 0);
}

CoordinatorSnapshot Coordinator::Snapshot() const {
  MutexLock lock(&mutex_);
  CoordinatorSnapshot snapshot;
  snapshot.epoch = epoch_;
  snapshot.job_id = job_ == nullptr ? "" : job_->id;
  snapshot.reason = reason_;
  snapshot.drain = drain_;
  snapshot.now = now_();
  snapshot.world_size = static_cast<int>(group_.size());
  for (const std::string& id : group_) {
    for (const Member& member : members_) {
      if (member.id == id) snapshot.members.push_back(member);
    }
  }
  for (const Member& member : members_) {
    if (std::find(group_.begin(), group_.end(), member.id) == group_.end()) snapshot.members.push_back(member);
  }
  return snapshot;
}

}  // namespace sluice::learner
