// What evaluation sees of the actors: helpers that decode blocks of prompts under a published policy, while this rank
// decodes blocks too. Whatever becomes of the actors, every block is decoded exactly once for the caller.
//
//   OpenDecode -> AddBlock ... -> (TakeForRank and decode here, TakeDecoded) until all blocks came -> CloseDecode
//
// Why the rank takes part: without actors, or before they hold the policy, nothing waits for them; and a block that
// an actor does not finish has somebody to finish it.
#ifndef SLUICE_LEARNER_LEDGER_EVAL_SOURCE_H_
#define SLUICE_LEARNER_LEDGER_EVAL_SOURCE_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/types/group.h"

namespace sluice::learner {

struct DecodeCall {
  uint64_t policy_version = 0;  // no other version's beams are taken
  int constrained_beams = 0;
  int unconstrained_beams = 0;
};

// The beams of a whole block, in the order of its prompts.
struct DecodedBlock {
  uint64_t block = 0;
  std::vector<DecodedPrompt> prompts;
};

// One call at a time; its functions are called by one thread.
class EvalSource {
 public:
  virtual ~EvalSource() = default;

  // FailedPrecondition: no job, another version than the latest published one, or a call is open; InvalidArgument: no
  // beams.
  virtual absl::Status OpenDecode(const DecodeCall& call) = 0;

  // A block waits for whoever takes it first; its prompts are decoded together, as what else is in a batch changes the
  // low bits of its results. `block` is new in this call, and so are the prompts' ordinals.
  virtual void AddBlock(uint64_t block, std::vector<Prompt> prompts) = 0;
  // Blocks that nobody has taken.
  virtual int waiting_blocks() const = 0;

  // Takes one of them for this rank: first what an actor took and did not finish (it goes to no second one).
  virtual std::optional<uint64_t> TakeForRank() = 0;

  // Blocks that actors have finished since the last call. Waits up to `limit` for one to be finished or to come back.
  // Cancelled: stopped.
  virtual absl::StatusOr<std::vector<DecodedBlock>> TakeDecoded(absl::Duration limit) = 0;

  // Ends the call; what actors still send is late.
  virtual void CloseDecode() = 0;
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_LEDGER_EVAL_SOURCE_H_
