#include "learner/ledger/ledger.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status/status.h"
#include "learner/ledger/check_result.h"
#include "learner/ledger/ledger_snapshot.h"

namespace sluice::learner {
absl::Status LedgerOptions::Validate() const {
  if (lease_groups < 1) return absl::InvalidArgumentError(absl::StrCat("lease_groups: want >= 1, got ", lease_groups));
  if (max_attempts < 1) return absl::InvalidArgumentError(absl::StrCat("max_attempts: want >= 1, got ", max_attempts));
  if (lease_deadline <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError(
        absl::StrCat("lease_deadline: want > 0, got ", absl::FormatDuration(lease_deadline)));
  }
  if (max_open < 1) return absl::InvalidArgumentError(absl::StrCat("max_open: want >= 1, got ", max_open));
  return absl::OkStatus();
}

absl::Status Ledger::CheckIssue(uint64_t step, const std::vector<Prompt>& prompts) const {
  if (prompts.empty()) return absl::InvalidArgumentError(absl::StrCat("step ", step, " has no prompts"));
  if (steps_.contains(step)) return absl::FailedPreconditionError(absl::StrCat("step ", step, " is open already"));
  for (size_t i = 0; i < prompts.size(); ++i) {
    const uint64_t ordinal = prompts[i].ordinal;
    if (i > 0 && ordinal <= prompts[i - 1].ordinal) {
      return absl::InvalidArgumentError(
          absl::StrCat("step ", step, ": want ascending ordinals, got ", ordinal, " after ", prompts[i - 1].ordinal));
    }
    if (open_.contains(ordinal) || terminal_.Contains(ordinal)) {
      return absl::FailedPreconditionError(absl::StrCat(
          "ordinal ", ordinal, " is ", open_.contains(ordinal) ? "open" : "terminal", " and cannot be issued again"));
    }
  }
  if (open_.size() + prompts.size() > options_.max_open) {
    return absl::ResourceExhaustedError(absl::StrCat("step ", step, ": ", open_.size(), " open groups and ",
                                                     prompts.size(), " more exceed the credit of ", options_.max_open));
  }
  return absl::OkStatus();
}

absl::Status Ledger::Issue(uint64_t step, std::vector<Prompt> prompts, uint64_t min_version, absl::Time now) {
  SLUICE_RETURN_IF_ERROR(CheckIssue(step, prompts));
  const uint64_t first = prompts.front().ordinal;
  const uint64_t size = static_cast<uint64_t>(options_.lease_groups);
  Step& opened = steps_[step];
  lowest_wanted_ = std::min(lowest_wanted_, min_version);
  for (Prompt& prompt : prompts) {
    const uint64_t ordinal = prompt.ordinal;
    Block& block = waiting_[first + (ordinal - first) / size * size];
    block.first = first + (ordinal - first) / size * size;
    block.min_version = min_version;
    block.ordinals.push_back(ordinal);
    if (auto restored = restored_.find(ordinal); restored != restored_.end()) {
      block.attempt = std::max(block.attempt, restored->second);
      restored_.erase(restored);  // counted as issued when the snapshot was taken
    } else {
      ++issued_;
    }
    opened.ordinals.push_back(ordinal);
    Entry& entry = open_[ordinal];
    entry.prompt = std::move(prompt);
    entry.step = step;
    entry.issued = now;
  }
  while (!restored_.empty() && restored_.begin()->first < first) {
    restored_.erase(restored_.begin());
    --issued_;
  }
  return absl::OkStatus();
}

std::optional<BlockLease> Ledger::Lease(const std::string& actor, uint64_t actor_version, uint64_t lease_id,
                                        absl::Time now) {
  // With many actors most calls come from one that is behind, and most blocks are not for it: asked once, not each
  // time.
  if (actor_version < lowest_wanted_) return std::nullopt;
  auto found = waiting_.begin();
  uint64_t lowest = std::numeric_limits<uint64_t>::max();
  for (; found != waiting_.end() && (found->second.min_version > actor_version || found->second.not_before > now);
       ++found) {
    lowest = std::min(lowest, found->second.min_version);
  }
  if (found == waiting_.end()) {
    lowest_wanted_ = lowest;
    return std::nullopt;
  }

  LiveLease live;
  live.actor = actor;
  live.deadline = now + options_.lease_deadline;
  live.block = std::move(found->second);
  waiting_.erase(found);
  ++live.block.attempt;
  ++live.block.leases;
  live.policy_version = options_.whole_blocks ? actor_version : live.block.min_version;

  BlockLease lease;
  lease.lease_id = lease_id;
  lease.block = live.block.first;
  lease.attempt = live.block.attempt;
  lease.policy_version = live.policy_version;
  lease.deadline = live.deadline;
  for (uint64_t ordinal : live.block.ordinals) {
    Entry& entry = open_.at(ordinal);
    entry.prompt.attempt = live.block.attempt;
    lease.prompts.push_back(entry.prompt);
    if (entry.state == State::kParked) continue;  // leased again for the sake of its neighbours
    entry.state = State::kLeased;
    entry.lease_id = lease.lease_id;
    live.unanswered.insert(ordinal);
  }
  const bool inserted = leases_.emplace(lease_id, std::move(live)).second;
  SLUICE_CHECK(inserted, absl::StrCat("lease id ", lease_id, " was given twice"));
  return lease;
}

Receipt Ledger::Judge(uint64_t ordinal, uint32_t attempt, uint64_t lease_id) const {
  auto found = open_.find(ordinal);
  if (found == open_.end()) return terminal_.Contains(ordinal) ? Receipt::kDuplicate : Receipt::kUnknown;
  const Entry& entry = found->second;
  if (entry.state == State::kParked) return Receipt::kDuplicate;
  if (entry.state != State::kLeased || entry.lease_id != lease_id || entry.prompt.attempt != attempt) {
    return Receipt::kLate;
  }
  // Given back already, its lease still open for its neighbours.
  return leases_.at(lease_id).unanswered.contains(ordinal) ? Receipt::kAccepted : Receipt::kDuplicate;
}

void Ledger::Park(uint64_t ordinal, std::optional<ScoredGroup> group, bool bad_data, std::string error) {
  Entry& entry = open_.at(ordinal);
  SLUICE_CHECK(entry.state != State::kParked, absl::StrCat("ordinal ", ordinal, " already has an outcome"));
  entry.state = State::kParked;
  entry.lease_id = 0;
  if (entry.unscored_since.has_value()) --unscored_;
  entry.group = std::move(group);
  entry.bad_data = bad_data;
  entry.error = std::move(error);
  ++steps_.at(entry.step).parked;
  ++outcomes_;
}

void Ledger::Answered(uint64_t lease_id, uint64_t ordinal) {
  LiveLease& lease = leases_.at(lease_id);
  lease.unanswered.erase(ordinal);
  if (lease.unanswered.empty()) EndLease(lease_id, lease.block.error);
}

Receipt Ledger::Complete(ScoredGroup group, absl::Time now) {
  const Receipt receipt = Judge(group.ordinal, group.attempt, group.lease_id);
  if (receipt != Receipt::kAccepted) return receipt;
  const uint64_t ordinal = group.ordinal;
  const uint64_t lease_id = group.lease_id;
  Park(ordinal, std::move(group), /*bad_data=*/false, "");
  open_.at(ordinal).completed = now;
  Answered(lease_id, ordinal);
  return receipt;
}

int Ledger::VoidScores(absl::Time since, const std::string& reason) {
  int voided = 0;
  for (auto& [ordinal, entry] : open_) {
    if (entry.state != State::kParked || !entry.group.has_value() || entry.completed <= since) continue;
    if (entry.group->score_status != ScoreStatus::kOk) continue;
    learner::VoidScores(reason, &*entry.group);
    ++voided;
  }
  return voided;
}

Receipt Ledger::Abandon(uint64_t ordinal, uint32_t attempt, uint64_t lease_id, const std::string& reason,
                        bool bad_data) {
  const Receipt receipt = Judge(ordinal, attempt, lease_id);
  if (receipt != Receipt::kAccepted) return receipt;
  if (bad_data) {
    Park(ordinal, std::nullopt, /*bad_data=*/true, reason);
  } else {
    LiveLease& lease = leases_.at(lease_id);
    lease.given_back.push_back(ordinal);
    lease.block.error = reason;
  }
  Answered(lease_id, ordinal);
  return receipt;
}

Receipt Ledger::PutBack(ScoredGroup group, absl::Time now, absl::Time not_before) {
  const Receipt receipt = Judge(group.ordinal, group.attempt, group.lease_id);
  if (receipt != Receipt::kAccepted) return receipt;
  const uint64_t ordinal = group.ordinal;
  const uint64_t lease_id = group.lease_id;
  Entry& entry = open_.at(ordinal);
  if (!entry.unscored_since.has_value()) {
    entry.unscored_since = now;
    ++unscored_;
  }
  ++entry.put_backs;
  LiveLease& lease = leases_.at(lease_id);
  lease.given_back.push_back(ordinal);
  ++lease.put_back;
  lease.block.error = group.score_error;
  lease.block.not_before = not_before;
  entry.group = std::move(group);
  Answered(lease_id, ordinal);
  return receipt;
}

std::optional<Ledger::PutBacks> Ledger::PutBacksOf(uint64_t ordinal) const {
  const Entry& entry = open_.at(ordinal);
  if (!entry.unscored_since.has_value()) return std::nullopt;
  return PutBacks{entry.put_backs, *entry.unscored_since};
}

int Ledger::CloseWaiting(absl::Time now, absl::Duration patience, std::optional<absl::Time> stopped_since) {
  int closed = 0;
  for (auto block = waiting_.begin(); block != waiting_.end();) {
    std::vector<uint64_t> left;
    bool waits = false;
    for (const uint64_t ordinal : block->second.ordinals) {
      Entry& entry = open_.at(ordinal);
      std::optional<absl::Time> since = entry.unscored_since;
      if (!since.has_value() && stopped_since.has_value()) since = std::max(entry.issued, *stopped_since);
      if (entry.state == State::kWaiting && since.has_value() && now - *since >= patience) {
        entry.reward_outage = !entry.group.has_value();
        Park(ordinal, std::move(entry.group), /*bad_data=*/false,
             entry.reward_outage ? "not sampled: no group can be scored" : "");
        ++closed;
      }
      waits = waits || entry.state == State::kWaiting;
      if (options_.whole_blocks || entry.state == State::kWaiting) left.push_back(ordinal);
    }
    block->second.ordinals = std::move(left);
    block = waits ? std::next(block) : waiting_.erase(block);
  }
  return closed;
}

void Ledger::EndLease(uint64_t lease_id, std::string reason) {
  auto found = leases_.find(lease_id);
  Block block = std::move(found->second.block);
  const size_t put_back = found->second.put_back;
  std::vector<uint64_t> left = std::move(found->second.given_back);
  left.insert(left.end(), found->second.unanswered.begin(), found->second.unanswered.end());
  leases_.erase(found);
  if (left.empty()) return;

  std::sort(left.begin(), left.end());
  block.error = std::move(reason);
  if (put_back == left.size()) --block.leases;
  if (block.leases >= options_.max_attempts) {
    for (uint64_t ordinal : left) {
      Park(ordinal, std::move(open_.at(ordinal).group), /*bad_data=*/false,
           absl::StrCat("no group after ", block.leases,
                        block.leases == 1 ? " attempt: " : " attempts, the last: ", block.error));
    }
    return;
  }
  for (uint64_t ordinal : left) {
    Entry& entry = open_.at(ordinal);
    entry.state = State::kWaiting;
    entry.lease_id = 0;
  }
  if (!options_.whole_blocks) block.ordinals = std::move(left);
  const uint64_t first = block.first;
  lowest_wanted_ = std::min(lowest_wanted_, block.min_version);
  const bool inserted = waiting_.emplace(first, std::move(block)).second;
  SLUICE_CHECK(inserted, absl::StrCat("block ", first, " was leased and waiting at once"));
}

int Ledger::Expire(absl::Time now) {
  std::vector<uint64_t> over;
  for (const auto& [id, lease] : leases_) {
    if (lease.deadline <= now) over.push_back(id);
  }
  for (uint64_t id : over) {
    EndLease(id, absl::StrCat("the lease of actor ", leases_.at(id).actor, " ran past its deadline"));
  }
  return static_cast<int>(over.size());
}

int Ledger::ReturnLeases(const std::string& actor, const std::string& reason) {
  std::vector<uint64_t> over;
  for (const auto& [id, lease] : leases_) {
    if (lease.actor == actor) over.push_back(id);
  }
  for (uint64_t id : over) EndLease(id, reason);
  return static_cast<int>(over.size());
}

bool Ledger::HoldsLease(const std::string& actor) const {
  return std::any_of(leases_.begin(), leases_.end(),
                     [&actor](const auto& entry) { return entry.second.actor == actor; });
}

absl::Time Ledger::NextDeadline() const {
  absl::Time next = absl::InfiniteFuture();
  for (const auto& [id, lease] : leases_) next = std::min(next, lease.deadline);
  return next;
}

bool Ledger::StepReady(uint64_t step) const {
  auto found = steps_.find(step);
  return found != steps_.end() && found->second.parked == found->second.ordinals.size();
}

absl::StatusOr<std::vector<TakenGroup>> Ledger::Take(uint64_t step) {
  if (!StepReady(step)) {
    return absl::FailedPreconditionError(
        absl::StrCat("step ", step, steps_.contains(step) ? " still waits for groups" : " is not open"));
  }
  Step& opened = steps_.at(step);
  if (opened.taken)
    return absl::FailedPreconditionError(absl::StrCat("the groups of step ", step, " were taken before"));
  opened.taken = true;
  std::vector<TakenGroup> groups;
  groups.reserve(opened.ordinals.size());
  for (uint64_t ordinal : opened.ordinals) {
    Entry& entry = open_.at(ordinal);
    groups.push_back(
        TakenGroup{entry.prompt, std::move(entry.group), entry.bad_data, entry.error, entry.reward_outage});
    entry.group.reset();
  }
  return groups;
}

void Ledger::MakeTerminal(uint64_t ordinal, TerminalState state) {
  const bool added = terminal_.Add(ordinal, ordinal + 1);
  SLUICE_CHECK(added, absl::StrCat("ordinal ", ordinal, " became terminal twice"));
  switch (state) {
    case TerminalState::kTrained:
      ++trained_;
      break;
    case TerminalState::kDropped:
      ++dropped_;
      break;
    case TerminalState::kFailed:
      ++failed_;
      break;
    case TerminalState::kCancelled:
      ++cancelled_;
      break;
  }
  if (const auto found = open_.find(ordinal); found != open_.end()) {
    if (found->second.unscored_since.has_value() && found->second.state != State::kParked) --unscored_;
    open_.erase(found);
  }
  restored_.erase(ordinal);
}

absl::Status Ledger::Commit(uint64_t step, absl::Span<const Verdict> verdicts) {
  if (!StepReady(step)) {
    return absl::FailedPreconditionError(absl::StrCat(
        "cannot commit step ", step, ": it ", steps_.contains(step) ? "still waits for groups" : "is not open"));
  }
  const std::vector<uint64_t> wanted = steps_.at(step).ordinals;
  std::map<uint64_t, TerminalState> given;
  for (const Verdict& verdict : verdicts) given.emplace(verdict.ordinal, verdict.state);
  if (verdicts.size() != wanted.size() || given.size() != wanted.size()) {
    return absl::InvalidArgumentError(absl::StrCat("step ", step, ": want one verdict for each of ", wanted.size(),
                                                   " ordinals, got ", verdicts.size(), " for ", given.size()));
  }
  for (uint64_t ordinal : wanted) {
    if (!given.contains(ordinal)) {
      return absl::InvalidArgumentError(absl::StrCat("step ", step, ": no verdict for ordinal ", ordinal));
    }
  }
  // No waiting block and no lease mentions these ordinals any more: a lease ends with its last unanswered ordinal, and
  // only blocks with unanswered ones wait.
  for (const auto& [ordinal, state] : given) MakeTerminal(ordinal, state);
  steps_.erase(step);
  return absl::OkStatus();
}

void Ledger::CancelOpen() {
  leases_.clear();
  waiting_.clear();
  steps_.clear();
  while (!open_.empty()) MakeTerminal(open_.begin()->first, TerminalState::kCancelled);
  while (!restored_.empty()) MakeTerminal(restored_.begin()->first, TerminalState::kCancelled);
  ++outcomes_;
}

LedgerBalance Ledger::Balance() const {
  LedgerBalance balance;
  balance.issued = issued_;
  balance.trained = trained_;
  balance.dropped = dropped_;
  balance.failed = failed_;
  balance.cancelled = cancelled_;
  balance.open = open_.size() + restored_.size();
  balance.frontier = terminal_.end();
  if (!open_.empty()) balance.frontier = open_.begin()->first;
  if (!restored_.empty() && (open_.empty() || restored_.begin()->first < balance.frontier)) {
    balance.frontier = restored_.begin()->first;
  }
  return balance;
}

uint64_t Ledger::parked() const {
  uint64_t count = 0;
  for (const auto& [step, opened] : steps_) count += opened.parked;
  return count;
}

std::string Ledger::Snapshot() const {
  const LedgerBalance balance = Balance();
  LedgerSnapshot snapshot = {.issued = balance.issued,
                             .trained = balance.trained,
                             .dropped = balance.dropped,
                             .failed = balance.failed,
                             .cancelled = balance.cancelled,
                             .frontier = balance.frontier};
  snapshot.terminal.assign(terminal_.ranges().begin(), terminal_.ranges().end());
  snapshot.open.assign(restored_.begin(), restored_.end());
  // The last attempt that went out; 0: none yet.
  std::map<uint64_t, uint32_t> attempts;
  for (const auto& [first, block] : waiting_) {
    for (uint64_t ordinal : block.ordinals) attempts[ordinal] = block.attempt;
  }
  for (const auto& [ordinal, entry] : open_) {
    auto waiting = attempts.find(ordinal);
    snapshot.open.emplace_back(ordinal, waiting == attempts.end() ? entry.prompt.attempt : waiting->second);
  }
  std::sort(snapshot.open.begin(), snapshot.open.end());
  return LedgerSnapshotText(snapshot);
}

absl::Status Ledger::Restore(const std::string& snapshot) {
  if (issued_ != 0 || terminal_.size() != 0) {
    return absl::FailedPreconditionError("a ledger is restored before anything is issued");
  }
  SLUICE_ASSIGN_OR_RETURN(const LedgerSnapshot read, ParseLedgerSnapshot(snapshot));
  Ledger restored(options_);
  restored.issued_ = read.issued;
  restored.trained_ = read.trained;
  restored.dropped_ = read.dropped;
  restored.failed_ = read.failed;
  restored.cancelled_ = read.cancelled;
  for (const auto& [first, end] : read.terminal) {
    if (!restored.terminal_.Add(first, end)) {
      return absl::DataLossError(
          absl::StrCat("ledger: terminal range [", first, ", ", end, ") is empty or overlaps another"));
    }
  }
  for (const auto& [ordinal, attempt] : read.open) {
    if (restored.terminal_.Contains(ordinal) || !restored.restored_.emplace(ordinal, attempt).second) {
      return absl::DataLossError(absl::StrCat("ledger: ordinal ", ordinal, " is listed twice"));
    }
  }
  if (read.frontier != restored.Balance().frontier) {
    return absl::DataLossError(
        absl::StrCat("ledger: its ordinals have frontier ", restored.Balance().frontier, ", it says ", read.frontier));
  }
  if (const absl::Status status = restored.Check(); !status.ok()) {
    return absl::DataLossError(absl::StrCat("ledger: ", status.message()));
  }
  issued_ = restored.issued_;
  trained_ = restored.trained_;
  dropped_ = restored.dropped_;
  failed_ = restored.failed_;
  cancelled_ = restored.cancelled_;
  terminal_ = std::move(restored.terminal_);
  restored_ = std::move(restored.restored_);
  return absl::OkStatus();
}

absl::Status Ledger::Check() const {
  const LedgerBalance balance = Balance();
  if (!balance.Holds()) {
    return absl::InternalError(absl::StrCat("issued ", balance.issued, " != trained ", balance.trained, " + dropped ",
                                            balance.dropped, " + failed ", balance.failed, " + cancelled ",
                                            balance.cancelled, " + open ", balance.open));
  }
  const uint64_t ended = trained_ + dropped_ + failed_ + cancelled_;
  if (terminal_.size() != ended) {
    return absl::InternalError(absl::StrCat(terminal_.size(), " terminal ordinals, but ", ended, " counted"));
  }
  std::map<uint64_t, int> places;  // where an ordinal without outcome is: in one waiting block or one lease
  for (const auto& [first, block] : waiting_) {
    if (block.min_version < lowest_wanted_) {
      return absl::InternalError(absl::StrCat("block ", first, " wants version ", block.min_version,
                                              ", yet versions below ", lowest_wanted_, " are refused"));
    }
    for (uint64_t ordinal : block.ordinals) {
      auto entry = open_.find(ordinal);
      if (entry == open_.end()) return absl::InternalError(absl::StrCat("waiting ordinal ", ordinal, " is not open"));
      if (entry->second.state == State::kWaiting) ++places[ordinal];
      if (entry->second.state == State::kLeased) {
        return absl::InternalError(absl::StrCat("ordinal ", ordinal, " is leased and waiting"));
      }
    }
  }
  for (const auto& [id, lease] : leases_) {
    if (lease.unanswered.empty())
      return absl::InternalError(absl::StrCat("lease ", id, " has nothing left to wait for"));
    for (uint64_t ordinal : lease.unanswered) ++places[ordinal];
    for (uint64_t ordinal : lease.given_back) ++places[ordinal];
  }
  std::map<uint64_t, uint64_t> parked;
  uint64_t unscored = 0;
  for (const auto& [ordinal, entry] : open_) {
    if (terminal_.Contains(ordinal))
      return absl::InternalError(absl::StrCat("ordinal ", ordinal, " is open and terminal"));
    if (!steps_.contains(entry.step)) return absl::InternalError(absl::StrCat("ordinal ", ordinal, " has no step"));
    const int wanted = entry.state == State::kParked ? 0 : 1;
    if (places[ordinal] != wanted) {
      return absl::InternalError(
          absl::StrCat("ordinal ", ordinal, " is in ", places[ordinal], " places, want ", wanted));
    }
    if (entry.state == State::kParked) ++parked[entry.step];
    if (entry.unscored_since.has_value() && entry.state != State::kParked) ++unscored;
  }
  if (unscored != unscored_) {
    return absl::InternalError(absl::StrCat(unscored, " groups wait for scores, but ", unscored_, " are counted"));
  }
  for (const auto& [step, opened] : steps_) {
    if (parked[step] != opened.parked) {
      return absl::InternalError(
          absl::StrCat("step ", step, ": ", parked[step], " parked, but ", opened.parked, " counted"));
    }
  }
  return absl::OkStatus();
}

}  // namespace sluice::learner
