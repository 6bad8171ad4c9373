#include "learner/publish/publication.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status/status.h"

namespace sluice::learner {

absl::string_view WeightStateName(WeightState state) {
  static constexpr absl::string_view kNames[] = {"joining", "pending_weights", "syncing", "ready", "draining"};
  return kNames[static_cast<size_t>(state)];
}

absl::string_view PublishPhaseName(PublishPhase phase) {
  static constexpr absl::string_view kNames[] = {"prepare", "transfer", "commit", "quorum"};
  return kNames[static_cast<size_t>(phase)];
}

absl::string_view FallbackReasonName(FallbackReason reason) {
  static constexpr absl::string_view kNames[] = {"no_peer", "late", "peer_failed", "group_late", "group_failed"};
  return kNames[static_cast<size_t>(reason)];
}

absl::Status PublicationOptions::Validate() const {
  if (min_actors < 0) return absl::InvalidArgumentError(absl::StrCat("min_actors: want >= 0, got ", min_actors));
  if (branching < 0) return absl::InvalidArgumentError(absl::StrCat("branching: want >= 0, got ", branching));
  for (const auto& [name, number] :
       {std::pair("group_members", group_members), std::pair("group_failures", group_failures)}) {
    if (number >= 1) continue;
    return absl::InvalidArgumentError(absl::StrCat(name, ": want >= 1, got ", number));
  }
  if (group_chunk_bytes == 0 || group_chunk_bytes % 4 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("group_chunk_bytes: want a positive multiple of 4, got ", group_chunk_bytes));
  }
  for (const auto& [name, limit] :
       {std::pair("prepare_timeout", prepare_timeout), std::pair("source_timeout", source_timeout),
        std::pair("transfer_timeout", transfer_timeout), std::pair("commit_timeout", commit_timeout),
        std::pair("retry_after", retry_after), std::pair("transfer_retry_after", transfer_retry_after),
        std::pair("group_timeout", group_timeout), std::pair("group_pause", group_pause)}) {
    if (limit > absl::ZeroDuration()) continue;
    return absl::InvalidArgumentError(absl::StrCat(name, ": want a time above 0, got ", absl::FormatDuration(limit)));
  }
  return absl::OkStatus();
}

Publication::Publication(PublicationOptions options) : options_(std::move(options)) {}

void Publication::Reset() {
  first_ = latest_ = 0;
  checksum_.clear();
  quorum_timed_ = true;
  rank_sends_ = committed_ = waiting_ = 0;
  next_deadline_ = absl::InfiniteFuture();
  orders_.clear();
  times_.clear();
  counts_ = {};
  DropGroup();
  round_ = {};
  gathering_ = false;
  gather_until_ = absl::InfiniteFuture();
  failed_rounds_ = 0;
  paused_until_ = absl::InfinitePast();
  for (auto& [handle, actor] : actors_) {
    const WeightState state = actor.state == WeightState::kDraining ? actor.state : WeightState::kJoining;
    Actor fresh;
    fresh.traits = std::move(actor.traits);
    fresh.state = actor.state;
    actor = std::move(fresh);
    SetState(actor, state);
  }
}

void Publication::Join(uint64_t handle, WeightTraits traits, absl::Time now) {
  Actor& actor = actors_[handle];
  actor.traits = std::move(traits);
  ++in_state_[static_cast<size_t>(actor.state)];
  if (latest_ != 0) Begin(handle, actor, now);
}

void Publication::Leave(uint64_t handle, absl::Time now) {
  const auto found = actors_.find(handle);
  if (found == actors_.end()) return;
  Drain(handle, now);
  --in_state_[static_cast<size_t>(WeightState::kDraining)];
  actors_.erase(found);
  for (auto& [other, actor] : actors_) {
    if (actor.source == handle) actor.source = 0;  // it finds out by itself, and takes the rest from the rank
  }
}

void Publication::Drain(uint64_t handle, absl::Time now) {
  const auto found = actors_.find(handle);
  if (found == actors_.end() || found->second.state == WeightState::kDraining) return;
  Actor& actor = found->second;
  if (Holds(actor)) CountCommitted(-1, now);
  ReleaseSource(actor);
  Enter(actor, Phase::kIdle, now, absl::InfiniteDuration());
  SetState(actor, WeightState::kDraining);
  if (actor.in_round) FailMember(handle, actor, now);  // the others would wait for it in vain
  Proceed(now);                                        // nobody waits for what this one would have sent
}

void Publication::Publish(uint64_t version, const std::string& checksum, absl::Time now) {
  SLUICE_CHECK(version > latest_, absl::StrCat("policy version ", version, " after ", latest_));
  if (latest_ == 0) first_ = version;
  latest_ = version;
  checksum_ = checksum;
  published_at_ = now;
  quorum_timed_ = options_.min_actors == 0;
  rank_sends_ = committed_ = 0;
  for (auto& [handle, actor] : actors_) {
    if (actor.state == WeightState::kDraining) continue;
    // Who is in the middle of a version ends it first: one that is slower than the learner would never have any.
    const bool busy = actor.phase == Phase::kTransfer || actor.phase == Phase::kCommit;
    if (!busy) Begin(handle, actor, now);
  }
  gathering_ = false;
  for (auto& [handle, actor] : actors_) {
    actor.invited = MayJoinGroup(actor) && !GroupPaused(now);
    gathering_ |= actor.invited;
  }
  Gather(now);
  Proceed(now);
}

void Publication::OnPrepared(uint64_t handle, uint64_t version, absl::Time now) {
  const auto found = actors_.find(handle);
  if (found == actors_.end()) return;
  Actor& actor = found->second;
  if (actor.phase != Phase::kPrepare || version != actor.target) return;
  Time(PublishPhase::kPrepare, actor, now);
  actor.silent = false;
  if (gathering_ && actor.invited) {
    Enter(actor, Phase::kRound, now, absl::InfiniteDuration());  // the round has a deadline
  } else {
    Enter(actor, Phase::kSource, now, options_.source_timeout);
  }
  SetState(actor, WeightState::kSyncing);
  Proceed(now);
}

void Publication::OnVerified(uint64_t handle, uint64_t version, const std::string& checksum, bool peer_failed,
                             absl::Time now) {
  const auto found = actors_.find(handle);
  if (found == actors_.end()) return;
  Actor& actor = found->second;
  const bool expected = actor.phase == Phase::kPrepare || actor.phase == Phase::kRound ||
                        actor.phase == Phase::kSource || actor.phase == Phase::kTransfer;
  if (!expected || version != actor.target) return;
  actor.silent = false;
  if (peer_failed) {
    ++counts_.fallbacks[static_cast<size_t>(FallbackReason::kPeerFailed)];
    if (const auto source = actors_.find(actor.source); source != actors_.end()) source->second.failed_at = version;
  }
  if (actor.phase == Phase::kTransfer) Time(PublishPhase::kTransfer, actor, now);
  ReleaseSource(actor);
  if (checksum != actor.checksum && actor.in_round) {
    // Another way may bring the right bytes; the group that did not is not believed again.
    ++counts_.mismatches;
    round_.damaged = true;
    FallBack(handle, actor, FallbackReason::kGroupFailed, now);
    CheckRound(now);
    Proceed(now);
    return;
  }
  const bool in_round = std::exchange(actor.in_round, false);
  if (checksum != actor.checksum) {
    ++counts_.mismatches;
    Enter(actor, Phase::kIdle, now, absl::InfiniteDuration());
    LeaveOut(actor, now, options_.retry_after);
  } else {
    actor.verified = std::max(actor.verified, version);
    Enter(actor, Phase::kCommit, now, options_.commit_timeout);
    SetState(actor, WeightState::kSyncing);
    orders_.push_back({handle, PublicationOrder::Kind::kCommit, version, "", {}});
  }
  if (in_round) CheckRound(now);
  Proceed(now);
}

void Publication::OnFailed(uint64_t handle, uint64_t version, absl::Time now) {
  const auto found = actors_.find(handle);
  if (found == actors_.end()) return;
  Actor& actor = found->second;
  const bool expected = actor.phase != Phase::kIdle && actor.phase != Phase::kOffered && !actor.in_round;
  if (!expected || version != actor.target) return;
  actor.silent = false;
  ReleaseSource(actor);
  Enter(actor, Phase::kIdle, now, absl::InfiniteDuration());
  if (version < latest_) {
    Begin(handle, actor, now);  // it may well have failed because of that
  } else {
    LeaveOut(actor, now, options_.retry_after);
  }
  Proceed(now);
}

void Publication::OnMemberFailed(uint64_t handle, uint64_t version, uint64_t epoch, absl::Time now) {
  const auto found = actors_.find(handle);
  if (found == actors_.end()) return;
  Actor& actor = found->second;
  actor.silent = false;
  // A round that is over has been answered already, and failing it is how its members learn of that.
  if (!actor.in_round || version != actor.target || epoch != group_.epoch) return;
  FailMember(handle, actor, now);
  Proceed(now);
}

void Publication::OnReady(uint64_t handle, uint64_t version, absl::Time now) {
  const auto found = actors_.find(handle);
  if (found == actors_.end() || latest_ == 0) return;
  Actor& actor = found->second;
  // A version of an abandoned timeline is no news: the actor hears of the right one by itself.
  if (version < first_ || version > latest_) return;
  if (actor.traits.staged && version > actor.verified) return;
  const bool before = Holds(actor);
  actor.active = std::max(actor.active, version);
  if (actor.state == WeightState::kDraining) return;
  if (!before && Holds(actor)) CountCommitted(1, now);
  const bool awaited = actor.phase == Phase::kCommit || actor.phase == Phase::kOffered;
  if (awaited && version >= actor.target) {
    if (actor.phase == Phase::kCommit) Time(PublishPhase::kCommit, actor, now);
    Enter(actor, Phase::kIdle, now, absl::InfiniteDuration());
    if (version < latest_) {
      Begin(handle, actor, now);
    } else {
      SetState(actor, WeightState::kReady);
    }
  }
  Proceed(now);
}

void Publication::OnBroadcast(uint64_t epoch, uint64_t version, bool ok, absl::Time now) {
  if (round_.version == 0 || epoch != group_.epoch || version != round_.version) return;
  if (ok) {
    round_.sent = true;
    CheckRound(now);
  } else {
    FailRound(FallbackReason::kGroupFailed, now);
  }
  Proceed(now);
}

void Publication::Tick(absl::Time now) {
  if (now < NextDeadline()) return;
  bool round_late = round_.version != 0 && now >= round_.deadline;
  for (auto& [handle, actor] : actors_) {
    if (now < actor.deadline) continue;
    if (actor.late) {
      if (actor.phase == Phase::kCommit) {
        // What it verified lies ready: it need not be sent again.
        Enter(actor, Phase::kCommit, now, options_.commit_timeout);
        orders_.push_back({handle, PublicationOrder::Kind::kCommit, actor.target, "", {}});
      } else {
        Begin(handle, actor, now);
      }
      continue;
    }
    if (actor.phase != Phase::kSource) ++counts_.left_out;
    switch (actor.phase) {
      case Phase::kSource:  // it waits for another, nobody for it
        ++counts_.fallbacks[static_cast<size_t>(FallbackReason::kLate)];
        Transfer(handle, actor, 0, now);
        break;
      case Phase::kTransfer:
        if (actor.in_round) {
          actor.silent = true;
          round_late = true;
          break;
        }
        ReleaseSource(actor);
        LeaveOut(actor, now, options_.transfer_retry_after);
        break;
      case Phase::kOffered:
        LeaveOut(actor, now, absl::InfiniteDuration());  // its stream does not lose messages: it will come, or leave
        break;
      case Phase::kPrepare:
        actor.silent = true;
        LeaveOut(actor, now, options_.retry_after);
        break;
      default:
        LeaveOut(actor, now, options_.retry_after);
    }
  }
  if (round_late) FailRound(FallbackReason::kGroupLate, now);
  Proceed(now);
  next_deadline_ = absl::InfiniteFuture();
  for (const auto& [handle, actor] : actors_) next_deadline_ = std::min(next_deadline_, actor.deadline);
}

std::vector<PublicationOrder> Publication::TakeOrders() { return std::exchange(orders_, {}); }

std::vector<GroupOrder> Publication::TakeGroupOrders() { return std::exchange(group_orders_, {}); }

std::vector<std::pair<PublishPhase, absl::Duration>> Publication::TakeTimes() { return std::exchange(times_, {}); }

uint64_t Publication::ActiveVersion(uint64_t handle) const {
  const auto found = actors_.find(handle);
  return found == actors_.end() ? 0 : found->second.active;
}

WeightState Publication::StateOf(uint64_t handle) const {
  const auto found = actors_.find(handle);
  return found == actors_.end() ? WeightState::kDraining : found->second.state;
}

void Publication::SetState(Actor& actor, WeightState state) {
  --in_state_[static_cast<size_t>(actor.state)];
  ++in_state_[static_cast<size_t>(state)];
  actor.state = state;
}

void Publication::Enter(Actor& actor, Phase phase, absl::Time now, absl::Duration limit) {
  waiting_ += (phase == Phase::kSource ? 1 : 0) - (actor.phase == Phase::kSource ? 1 : 0);
  actor.phase = phase;
  actor.late = false;
  actor.since = now;
  actor.deadline = now + limit;
  next_deadline_ = std::min(next_deadline_, actor.deadline);
}

void Publication::Begin(uint64_t handle, Actor& actor, absl::Time now) {
  actor.target = latest_;
  actor.checksum = checksum_;
  if (actor.traits.staged) {
    Enter(actor, Phase::kPrepare, now, options_.prepare_timeout);
  } else {
    Enter(actor, Phase::kOffered, now, options_.transfer_timeout);
  }
  SetState(actor, WeightState::kSyncing);
  orders_.push_back({handle, PublicationOrder::Kind::kPrepare, latest_, "", {}});
}

void Publication::Transfer(uint64_t handle, Actor& actor, uint64_t source, absl::Time now) {
  std::string address;
  if (source != 0) {
    Actor& sender = actors_.at(source);
    ++sender.serving;
    address = sender.traits.peer_address;
  }
  ++(source == 0 ? counts_.from_rank : counts_.from_peer);
  Enter(actor, Phase::kTransfer, now, options_.transfer_timeout);
  actor.source = source;
  orders_.push_back({handle, PublicationOrder::Kind::kTransfer, actor.target, std::move(address), {}});
}

void Publication::LeaveOut(Actor& actor, absl::Time now, absl::Duration retry_after) {
  actor.late = true;
  actor.deadline = now + retry_after;
  next_deadline_ = std::min(next_deadline_, actor.deadline);
  SetState(actor, WeightState::kPendingWeights);
}

void Publication::ReleaseSource(Actor& actor) {
  if (const auto source = actors_.find(actor.source); source != actors_.end()) --source->second.serving;
  actor.source = 0;
}

void Publication::Time(PublishPhase phase, const Actor& actor, absl::Time now) {
  times_.emplace_back(phase, now - actor.since);
}

bool Publication::MaySend(const Actor& actor) const {
  return !actor.traits.peer_address.empty() && actor.traits.staged && actor.state != WeightState::kDraining &&
         actor.failed_at != latest_;
}

void Publication::AssignSources(absl::Time now) {
  if (waiting_ == 0) return;
  // First those that can send it on.
  for (const bool senders : {true, false}) {
    for (auto& [handle, actor] : actors_) {
      if (actor.phase == Phase::kSource && MaySend(actor) == senders) AssignSource(handle, actor, now);
    }
  }
}

void Publication::AssignSource(uint64_t handle, Actor& actor, absl::Time now) {
  uint64_t sender = 0;
  int least = options_.branching;
  bool sender_comes = false;   // somebody holds it, or fetches it and will be able to send it on
  bool sender_begins = false;  // somebody will fetch it and be able to
  for (const auto& [other_handle, other] : actors_) {
    if (other_handle == handle || !MaySend(other)) continue;
    if (Holds(other)) {
      sender_comes = true;
      if (other.serving < least) {
        least = other.serving;
        sender = other_handle;
      }
    } else if (other.target == latest_ && !other.late) {
      sender_comes |= other.phase == Phase::kTransfer || other.phase == Phase::kCommit;
      sender_begins |= other.phase == Phase::kPrepare || other.phase == Phase::kRound;
    }
  }
  // One place at the rank is kept for whoever can send the version on.
  const bool keep_one = !MaySend(actor) && sender_begins && !sender_comes;
  if (options_.branching == 0 || rank_sends_ + (keep_one ? 1 : 0) < options_.branching) {
    ++rank_sends_;
    Transfer(handle, actor, 0, now);
  } else if (sender != 0) {
    Transfer(handle, actor, sender, now);
  } else if (!sender_comes && !sender_begins) {
    ++counts_.fallbacks[static_cast<size_t>(FallbackReason::kNoPeer)];
    Transfer(handle, actor, 0, now);
  }
}

bool Publication::MayJoinGroup(const Actor& actor) const {
  return !options_.group.empty() && actor.traits.group == options_.group && actor.traits.staged &&
         actor.state != WeightState::kDraining;
}

bool Publication::RoundAwaits(const Actor& actor) const {
  if (!actor.invited || actor.late || actor.silent || actor.state == WeightState::kDraining) return false;
  const bool busy = actor.phase == Phase::kTransfer || actor.phase == Phase::kCommit;
  return actor.phase == Phase::kPrepare || (busy && actor.target < latest_);
}

void Publication::Proceed(absl::Time now) {
  if (gathering_ && round_.version == 0) {
    const bool awaits =
        std::any_of(actors_.begin(), actors_.end(), [this](const auto& entry) { return RoundAwaits(entry.second); });
    if (!awaits || now >= gather_until_) BeginRound(now);
  }
  AssignSources(now);
}

void Publication::Gather(absl::Time now) {
  const bool may_begin = gathering_ && round_.version == 0;
  gather_until_ = may_begin ? now + options_.prepare_timeout : absl::InfiniteFuture();
}

void Publication::BeginRound(absl::Time now) {
  gathering_ = false;
  Gather(now);
  const size_t places = GroupPaused(now) ? 0 : static_cast<size_t>(options_.group_members);
  std::vector<uint64_t> members;
  for (auto& [handle, actor] : actors_) {
    if (actor.phase != Phase::kRound) continue;
    if (members.size() < places) {
      members.push_back(handle);
    } else {
      Enter(actor, Phase::kSource, now, options_.source_timeout);
    }
  }
  if (members.empty()) return;
  if (group_.epoch == 0 || members != group_.members) {
    DropGroup();
    group_ = {++last_group_epoch_, std::move(members)};
    ++counts_.groups;
  }
  round_ = {.version = latest_, .deadline = now + options_.group_timeout};
  GroupPlace place = {group_.epoch, 0, static_cast<int>(group_.members.size()) + 1};
  group_orders_.push_back({GroupOrder::Kind::kSend, latest_, place});
  for (const uint64_t handle : group_.members) {
    Actor& actor = actors_.at(handle);
    ++place.rank;
    ++counts_.from_group;
    Enter(actor, Phase::kTransfer, now, options_.group_timeout);
    actor.in_round = true;
    orders_.push_back({handle, PublicationOrder::Kind::kBroadcast, latest_, "", place});
  }
}

void Publication::FallBack(uint64_t handle, Actor& actor, FallbackReason reason, absl::Time now) {
  actor.in_round = false;
  if (actor.state == WeightState::kDraining) return;
  ++counts_.fallbacks[static_cast<size_t>(reason)];
  if (actor.target < latest_) {
    actor.invited = false;  // it has waited long enough
    Begin(handle, actor, now);
  } else {
    Enter(actor, Phase::kSource, now, options_.source_timeout);
  }
}

void Publication::FailMember(uint64_t handle, Actor& actor, absl::Time now) {
  if (!round_.sent) {
    FailRound(FallbackReason::kGroupFailed, now);
    return;
  }
  // All of it has left the rank: the others may well have it.
  round_.damaged = true;
  FallBack(handle, actor, FallbackReason::kGroupFailed, now);
  CheckRound(now);
}

void Publication::FailRound(FallbackReason reason, absl::Time now) {
  for (auto& [handle, actor] : actors_) {
    if (actor.in_round) FallBack(handle, actor, reason, now);
  }
  EndRound(/*ok=*/false, now);
}

void Publication::CheckRound(absl::Time now) {
  if (round_.version == 0 || !round_.sent) return;
  const bool awaited =
      std::any_of(actors_.begin(), actors_.end(), [](const auto& entry) { return entry.second.in_round; });
  if (!awaited) EndRound(!round_.damaged, now);
}

void Publication::EndRound(bool ok, absl::Time now) {
  round_ = {};
  // Who was in it is asked for the version after it only now.
  Gather(now);
  if (ok) {
    failed_rounds_ = 0;
    return;
  }
  DropGroup();
  if (++failed_rounds_ < options_.group_failures) return;
  failed_rounds_ = 0;
  ++counts_.pauses;
  paused_until_ = now + options_.group_pause;
}

void Publication::DropGroup() {
  if (group_.epoch == 0) return;
  group_orders_.push_back({GroupOrder::Kind::kAbort, 0, {.epoch = group_.epoch}});
  group_ = {};
}

void Publication::CountCommitted(int by, absl::Time now) {
  committed_ += by;
  if (quorum_timed_ || committed_ < options_.min_actors) return;
  quorum_timed_ = true;
  times_.emplace_back(PublishPhase::kQuorum, now - published_at_);
}

std::string Publication::Fingerprint(absl::Time now) const {
  const auto until = [now](absl::Time deadline) {
    return deadline == absl::InfiniteFuture() ? std::string("-") : absl::FormatDuration(deadline - now);
  };
  std::string text = absl::StrCat(first_, ".", latest_, ".", rank_sends_, ".", group_.epoch, ".", round_.version, ".",
                                  round_.sent, ".", round_.damaged, ".", until(round_.deadline), ".", gathering_, ".",
                                  until(gather_until_), ".", failed_rounds_, ".", GroupPaused(now));
  for (const uint64_t member : group_.members) absl::StrAppend(&text, ",", member);
  for (const auto& [handle, actor] : actors_) {
    absl::StrAppend(&text, "|", handle, ".", static_cast<int>(actor.state), ".", static_cast<int>(actor.phase), ".",
                    actor.late, ".", actor.target, ".", actor.verified, ".", actor.active, ".", actor.source, ".",
                    actor.serving, ".", actor.failed_at, ".", actor.invited, actor.in_round, actor.silent, ".",
                    until(actor.deadline));
  }
  return text;
}

}  // namespace sluice::learner
