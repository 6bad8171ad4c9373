// The book of every ordinal: issued, leased, answered, terminal. Exactly one terminal state each, whatever is lost,
// late or doubled on the way.
//
//           Issue            Lease              Complete, Abandon(bad data),
//   (none) ------> waiting -------> leased ---- too many attempts ----> parked -------> terminal
//                     ^               |  lease over without an answer,    |    Commit
//                     +---------------+  or PutBack: without scores         +-- CancelOpen: from any of the three
//
// A group that came without scores waits to be tried again, whole; CloseWaiting parks it as it is when it has waited
// for long enough. An attempt that ended so costs none of max_attempts: the actors are well.
//
// Ordinals are leased in blocks: `lease_groups` consecutive ordinals from the start of the slice that was issued. When
// a lease ends with ordinals unanswered, they wait again with the next attempt: in whole-block mode (synchronous
// training) the block goes out whole, because what else is in a batch changes the low bits of its results; the
// answers that had already come stay, and those that come again are duplicates.
//
// Results are fenced by lease id and attempt: a lease that is over can no longer change anything.
//
// Pure state: time comes in as an argument, nothing blocks. Not thread-safe; RolloutHub holds the lock.
#ifndef SLUICE_LEARNER_LEDGER_LEDGER_H_
#define SLUICE_LEARNER_LEDGER_LEDGER_H_

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/types/group.h"
#include "learner/ledger/group_source.h"
#include "learner/ledger/ordinal_set.h"

namespace sluice::learner {

struct LedgerOptions {
  // Ordinals in one lease.
  int lease_groups = 8;
  // From grant; then the lease is over and its unanswered ordinals wait again.
  absl::Duration lease_deadline = absl::Seconds(60);
  // Leases of one block in this process's life; after the last the ordinal parks without a group.
  int max_attempts = 5;
  // Synchronous training: a block is leased again whole.
  bool whole_blocks = false;
  // Credits: (S + 1) * groups_per_step of this rank. Issue refuses more open ordinals.
  uint64_t max_open = 192;

  // InvalidArgument names the field.
  absl::Status Validate() const;
};

// A block on its way to an actor.
struct BlockLease {
  uint64_t lease_id = 0;
  uint64_t block = 0;    // first ordinal of the block, whether or not it is in `prompts`
  uint32_t attempt = 1;  // of every prompt
  // What to work under: the actor's own version in whole-block mode; else the newest one when the block was issued,
  // and any later one will do.
  uint64_t policy_version = 0;
  absl::Time deadline;
  std::vector<Prompt> prompts;
};

// What a result did.
enum class Receipt {
  kAccepted,
  kDuplicate,  // the ordinal already has its outcome
  kLate,       // the lease is over, or was of another attempt
  kUnknown,    // never issued here
};

class Ledger {
 public:
  explicit Ledger(const LedgerOptions& options) : options_(options) {}

  // Opens a step's ordinals. Prompts in ascending ordinal order; `min_version` is what actors must at least hold to
  // work on them. An ordinal that was open in a restored snapshot continues with its next attempt; one that was open
  // there, lies before these and was not issued again went to another rank and leaves this book.
  // ResourceExhausted: more than max_open ordinals would be open; FailedPrecondition: an ordinal is open or terminal
  // already, or the step is open; InvalidArgument: empty or unordered. Nothing changes on an error.
  absl::Status Issue(uint64_t step, std::vector<Prompt> prompts, uint64_t min_version,
                     absl::Time now = absl::InfinitePast());

  // The waiting block with the lowest ordinal among those that `actor_version` may work on, or none. `lease_id` must
  // never have been used before.
  std::optional<BlockLease> Lease(const std::string& actor, uint64_t actor_version, uint64_t lease_id, absl::Time now);

  // Whether a result of (ordinal, attempt, lease) would be accepted. Changes nothing.
  Receipt Judge(uint64_t ordinal, uint32_t attempt, uint64_t lease_id) const;
  // Of a live lease, or an open ordinal (Judge said kAccepted).
  uint64_t LeasePolicyVersion(uint64_t lease_id) const { return leases_.at(lease_id).policy_version; }
  const std::string& LeaseActor(uint64_t lease_id) const { return leases_.at(lease_id).actor; }
  size_t LeaseGroups(uint64_t lease_id) const { return leases_.at(lease_id).block.ordinals.size(); }
  const Prompt& PromptOf(uint64_t ordinal) const { return open_.at(ordinal).prompt; }

  // Takes in one result, which the caller has checked. Changes the book only if it returns kAccepted.
  Receipt Complete(ScoredGroup group, absl::Time now = absl::InfinitePast());
  // Takes the scores of groups that came after `since`, and that no step has taken yet, away again: their status
  // becomes kInvalid with the reason. Returns how many.
  int VoidScores(absl::Time since, const std::string& reason);
  // The same as Complete for a group without scores that another attempt may get: it is kept, and waits again, from
  // `not_before` on, once its lease is over.
  Receipt PutBack(ScoredGroup group, absl::Time now, absl::Time not_before);
  // How often the ordinal, which is open, was put back, and since when; nullopt: never.
  struct PutBacks {
    int times = 0;
    absl::Time since;
  };
  std::optional<PutBacks> PutBacksOf(uint64_t ordinal) const;
  // Parks what has waited for `patience` without an actor at work on it: groups that were put back, from the first time
  // on; and, if `stopped_since` says that nothing goes out, prompts that were not sampled, from then or their issue on.
  // Returns how many.
  int CloseWaiting(absl::Time now, absl::Duration patience, std::optional<absl::Time> stopped_since);
  // The actor gives the ordinal back. bad_data: it parks for good; otherwise it waits again once its lease is over.
  Receipt Abandon(uint64_t ordinal, uint32_t attempt, uint64_t lease_id, const std::string& reason, bool bad_data);
  // Ends the leases whose deadline has passed; returns how many.
  int Expire(absl::Time now);
  // The actor is gone: its leases end. Returns how many.
  int ReturnLeases(const std::string& actor, const std::string& reason);
  // The earliest deadline of a live lease; InfiniteFuture if there is none.
  absl::Time NextDeadline() const;

  // Every ordinal of the step has an outcome. False for a step that is not open.
  bool StepReady(uint64_t step) const;
  bool StepOpen(uint64_t step) const { return steps_.count(step) > 0; }
  // The outcomes in ordinal order, moved out. FailedPrecondition: not open, not ready, or taken before.
  absl::StatusOr<std::vector<TakenGroup>> Take(uint64_t step);
  // Makes every ordinal of the step terminal. InvalidArgument unless there is exactly one verdict for each;
  // FailedPrecondition if the step is not open or not ready. Nothing changes on an error.
  absl::Status Commit(uint64_t step, absl::Span<const Verdict> verdicts);
  // Every open ordinal becomes terminal as cancelled; leases end.
  void CancelOpen();

  LedgerBalance Balance() const;
  // Terminal ordinals above the frontier.
  uint64_t ahead_of_frontier() const { return terminal_.CountAbove(Balance().frontier); }
  uint64_t waiting_blocks() const { return waiting_.size(); }
  uint64_t live_leases() const { return leases_.size(); }
  bool HoldsLease(const std::string& actor) const;
  uint64_t parked() const;
  // Groups that were put back and have no outcome yet.
  uint64_t unscored() const { return unscored_; }
  // Times that an outcome was added, of whatever kind. For "is there progress".
  uint64_t outcomes() const { return outcomes_; }

  // JSON: counts, terminal ranges, and the open ordinals with their attempts.
  std::string Snapshot() const;
  // Into a fresh ledger only. DataLoss: not what Snapshot writes, or its counts contradict each other.
  absl::Status Restore(const std::string& snapshot);

  // Walks the whole book and checks it against the counts, the balance included. Internal names what is wrong. For
  // tests and checkpoints.
  absl::Status Check() const;

 private:
  enum class State { kWaiting, kLeased, kParked };

  struct Entry {
    Prompt prompt;
    uint64_t step = 0;
    State state = State::kWaiting;
    uint64_t lease_id = 0;  // kLeased
    absl::Time issued;
    std::optional<absl::Time> unscored_since;  // put back for the first time
    int put_backs = 0;
    absl::Time completed = absl::InfinitePast();
    std::optional<ScoredGroup> group;  // the outcome, or what was put back
    bool bad_data = false;
    bool reward_outage = false;
    std::string error;
  };

  struct Block {
    uint64_t first = 0;
    std::vector<uint64_t> ordinals;  // to lease
    uint32_t attempt = 0;            // of the last lease
    int leases = 0;                  // in this process's life
    uint64_t min_version = 0;
    absl::Time not_before = absl::InfinitePast();
    std::string error;  // why the last lease ended without all answers
  };

  struct LiveLease {
    std::string actor;
    uint64_t policy_version = 0;
    absl::Time deadline;
    Block block;
    std::set<uint64_t> unanswered;
    std::vector<uint64_t> given_back;  // answered with Abandoned: wait again when the lease is over
    size_t put_back = 0;               // of them, those without scores
  };

  struct Step {
    std::vector<uint64_t> ordinals;
    uint64_t parked = 0;
    bool taken = false;
  };

  absl::Status CheckIssue(uint64_t step, const std::vector<Prompt>& prompts) const;
  void Park(uint64_t ordinal, std::optional<ScoredGroup> group, bool bad_data, std::string error);
  // Removes `ordinal` from its lease's duties; ends the lease after the last.
  void Answered(uint64_t lease_id, uint64_t ordinal);
  void EndLease(uint64_t lease_id, std::string reason);
  void MakeTerminal(uint64_t ordinal, TerminalState state);

  const LedgerOptions options_;
  std::map<uint64_t, Entry> open_;
  std::map<uint64_t, Step> steps_;
  std::map<uint64_t, Block> waiting_;  // by first ordinal of the block: oldest first
  uint64_t lowest_wanted_ = 0;         // no waiting block takes an actor of a lower version
  std::map<uint64_t, LiveLease> leases_;
  std::map<uint64_t, uint32_t> restored_;  // open in the snapshot, not issued again yet: last attempt
  OrdinalSet terminal_;
  uint64_t outcomes_ = 0;
  uint64_t unscored_ = 0;
  uint64_t issued_ = 0;
  uint64_t trained_ = 0;
  uint64_t dropped_ = 0;
  uint64_t failed_ = 0;
  uint64_t cancelled_ = 0;
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_LEDGER_LEDGER_H_
