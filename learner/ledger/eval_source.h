// What evaluation sees of the actors: beams of prompts under the latest published policy.
#ifndef SLUICE_LEARNER_LEDGER_EVAL_SOURCE_H_
#define SLUICE_LEARNER_LEDGER_EVAL_SOURCE_H_

#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/types/group.h"

namespace sluice::learner {

class EvalSource {
 public:
  virtual ~EvalSource() = default;

  // Leases the prompts (ordinals ascending, unique within the call) to actors and blocks until every one has its
  // beams, in the order asked. Unavailable: nothing came for `patience`, or a prompt failed on every attempt;
  // InvalidArgument: bad prompts, or a prompt whose record is bad; FailedPrecondition: no job, nothing published, or
  // another call is in progress; Cancelled: stopped.
  virtual absl::StatusOr<std::vector<DecodedPrompt>> Decode(std::vector<Prompt> prompts, int constrained_beams,
                                                            int unconstrained_beams, absl::Duration patience) = 0;
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_LEDGER_EVAL_SOURCE_H_
