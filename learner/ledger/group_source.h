// What the training loop sees of rollouts: it issues a step's prompts, waits for their groups, commits what became
// of them, and publishes weights. Behind it stand the ledger, leases and actors (RolloutHub), or a fake in tests.
#ifndef SLUICE_LEARNER_LEDGER_GROUP_SOURCE_H_
#define SLUICE_LEARNER_LEDGER_GROUP_SOURCE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "common/types/group.h"
#include "learner/publish/policy_snapshot.h"

namespace sluice::learner {

// Every ordinal ends in exactly one of these.
enum class TerminalState { kTrained, kDropped, kFailed, kCancelled };

// issued = trained + dropped + failed + cancelled + open holds at all times (design.md 4.8).
struct LedgerBalance {
  uint64_t issued = 0;
  uint64_t trained = 0;
  uint64_t dropped = 0;
  uint64_t failed = 0;
  uint64_t cancelled = 0;
  uint64_t open = 0;
  uint64_t frontier = 0;  // the lowest ordinal that is not terminal

  bool Holds() const { return issued == trained + dropped + failed + cancelled + open; }
};

// One ordinal of a step as the training loop takes it: with its group, or without one and why.
struct TakenGroup {
  Prompt prompt;
  std::optional<ScoredGroup> group;  // absent: unsampled after max_attempts, or bad data
  bool bad_data = false;             // the record itself is bad: ends as failed, trains nothing
  std::string error;                 // one sentence when there is no group
  bool reward_outage = false;        // not sampled, as nobody could have scored it
};

struct Verdict {
  uint64_t ordinal = 0;
  TerminalState state = TerminalState::kTrained;
  std::string reason;  // gate reason code ("open", "difficulty", "stale", ...), or why it failed
};

class GroupSource {
 public:
  virtual ~GroupSource() = default;

  // Issues this rank's slice of `step`: prompts in ordinal order, ordinals never issued before in this job (or
  // open again after a restore). Consumes credits. ResourceExhausted beyond (S + 1) * groups_per_step open groups.
  virtual absl::Status Issue(uint64_t step, std::vector<Prompt> prompts) = 0;

  // Blocks until every ordinal of the step has an outcome, in ordinal order. Unavailable after `patience` without
  // any progress (no actor, say); Cancelled after Stop().
  virtual absl::StatusOr<std::vector<TakenGroup>> Wait(uint64_t step, absl::Duration patience) = 0;

  // The step was trained (or not): every ordinal of it becomes terminal. Part of the step's commit.
  virtual absl::Status Commit(uint64_t step, absl::Span<const Verdict> verdicts) = 0;

  // Ends all open ordinals as cancelled.
  virtual void CancelOpen() = 0;

  // Offers new weights to the actors. Later leases ask for at least this version (exactly, in synchronous mode).
  virtual void Publish(std::shared_ptr<const PolicySnapshot> snapshot) = 0;

  virtual LedgerBalance Balance() const = 0;
  // The ledger as a JSON document for the checkpoint, and back. Restore leaves no ordinal leased: what was open is
  // to be issued again under the same ordinal and the next attempt.
  virtual std::string Snapshot() const = 0;
  virtual absl::Status Restore(const std::string& snapshot) = 0;

  // Actors attached to this rank.
  virtual int num_actors() const = 0;
  // Lines for the job's log about the ranker's health since the last call, and what is wrong with it now in one
  // sentence; empty: nothing.
  virtual std::vector<std::string> TakeRewardNews() { return {}; }
  virtual std::string RewardTrouble() const { return ""; }
  // Wakes Wait with Cancelled.
  virtual void Stop() = 0;
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_LEDGER_GROUP_SOURCE_H_
