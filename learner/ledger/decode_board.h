// The blocks of one evaluation: waiting, leased to an actor, or done.
//
//            Lease            Answer, the last prompt of the block
//   waiting -------> leased ---------------------------------------> done, once
//      |               | GiveBack, ReturnLeases, Expire
//      |               v
//      |            returned
//      +---------------+--> taken by the rank
//
// An actor gets a block once: what comes back is the rank's, so that every block ends after one lease at most, and a
// block is taken whole or not at all. Answers are fenced by lease id: one that is over changes nothing.
//
// Pure state: time comes in as an argument, nothing blocks. Not thread-safe; RolloutHub holds the lock.
#ifndef SLUICE_LEARNER_LEDGER_DECODE_BOARD_H_
#define SLUICE_LEARNER_LEDGER_DECODE_BOARD_H_

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/types/group.h"
#include "learner/ledger/eval_source.h"
#include "learner/ledger/ledger.h"

namespace sluice::learner {

class DecodeBoard {
 public:
  DecodeBoard(const DecodeCall& call, absl::Duration lease_deadline) : call_(call), lease_deadline_(lease_deadline) {}

  const DecodeCall& call() const { return call_; }

  void Add(uint64_t block, std::vector<Prompt> prompts);
  // The earliest block that no actor had, or none. `lease_id` must never have been used before.
  std::optional<BlockLease> Lease(const std::string& actor, uint64_t lease_id, absl::Time now);
  // What came back from an actor, else the earliest that waits, or none.
  std::optional<uint64_t> TakeForRank();

  // Whether an answer of this actor for this prompt would be taken. Changes nothing.
  Receipt Judge(const std::string& actor, uint64_t lease_id, uint64_t ordinal) const;
  // Takes in one prompt's beams, which the caller has checked, and for which Judge says kAccepted.
  void Answer(DecodedPrompt decoded);
  // The lease's block comes back whole. Nothing happens if the lease is over.
  void GiveBack(uint64_t lease_id);
  // Leases past their deadline, or of an actor that is gone. Both return how many.
  int Expire(absl::Time now);
  int ReturnLeases(const std::string& actor);

  // The blocks that were completed since the last call.
  std::vector<DecodedBlock> TakeDecoded();

  int waiting() const { return static_cast<int>(fresh_.size() + returned_.size()); }
  int fresh() const { return static_cast<int>(fresh_.size()); }
  int live_leases() const { return static_cast<int>(leases_.size()); }
  bool HoldsLease(const std::string& actor) const;
  // Something for TakeDecoded or TakeForRank.
  bool HasNews() const { return !done_.empty() || waiting() > 0; }
  // The earliest deadline of a live lease; InfiniteFuture if there is none.
  absl::Time NextDeadline() const;

 private:
  struct LiveLease {
    std::string actor;
    uint64_t block = 0;
    absl::Time deadline;
    std::vector<Prompt> prompts;
    std::map<uint64_t, DecodedPrompt> answers;  // by ordinal
  };

  const DecodeCall call_;
  const absl::Duration lease_deadline_;
  std::map<uint64_t, std::vector<Prompt>> fresh_;
  std::set<uint64_t> returned_;
  std::map<uint64_t, LiveLease> leases_;
  std::vector<DecodedBlock> done_;
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_LEDGER_DECODE_BOARD_H_
