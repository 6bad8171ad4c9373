// Whether a result is whole: what an actor sends is checked number by number before it may touch the ledger.
// Pure functions.
#ifndef SLUICE_LEARNER_LEDGER_CHECK_RESULT_H_
#define SLUICE_LEARNER_LEDGER_CHECK_RESULT_H_

#include "absl/status/status.h"
#include "common/types/group.h"
#include "learner/ledger/rank_message.h"

namespace sluice::learner {

// Which versions a result may come from.
struct VersionWindow {
  uint64_t wanted = 0;  // by the lease
  bool exact = false;   // no other one
  uint64_t latest = 0;  // published
};

// FailedPrecondition, with both versions: outside the window. Versions before `wanted` include every version of an
// abandoned timeline, since a restarted learner first publishes under a fresh, higher one.
absl::Status CheckVersion(uint64_t behavior_version, const VersionWindow& window);

// InvalidArgument names the first field that is wrong, with what was wanted and what came:
// G completions (fewer only for beams, when the catalog holds too few), L tokens and log-probabilities each, all
// finite; leaves that match their tokens; the catalog version; scores that are there exactly when the status says so,
// finite, as many as completions and negatives; log-probabilities of the target exactly if there is one.
absl::Status CheckGroup(const ScoredGroup& group, const Prompt& prompt, const HubJob& job);

// The same for beams: at most as many as asked for.
absl::Status CheckDecoded(const DecodedPrompt& decoded, int constrained_beams, int unconstrained_beams,
                          const HubJob& job);

// Takes a group's scores away, because they are not believed: kInvalid, for the reason `why`.
void VoidScores(std::string why, ScoredGroup* group);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_LEDGER_CHECK_RESULT_H_
