// What the first rank hands to the others when a job resumes: it alone reads the checkpoint, so a rank that comes back,
// or one on a machine that never held the run folder, takes its state from a peer. Collective calls, from the job's
// thread.
#ifndef SLUICE_LEARNER_RUN_SHARE_STATE_H_
#define SLUICE_LEARNER_RUN_SHARE_STATE_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/collective/collective.h"
#include "common/model/policy.h"
#include "learner/train/adamw.h"
#include "learner/train/checkpoint.h"

namespace sluice::learner {

// The strings of all ranks, in rank order, on every rank.
absl::StatusOr<std::vector<std::string>> GatherStrings(Collective& collective, const std::string& mine);

// The first rank's strings, on every rank.
absl::StatusOr<std::vector<std::string>> BroadcastStrings(Collective& collective, const std::vector<std::string>& mine);

// `state`, parameters, moments and the optimizer's steps become the first rank's, bit by bit, on every rank.
// InvalidArgument, on the ranks that differ, if their policies have another size than the first rank's: told before
// anything of that size is sent.
absl::Status ShareState(Collective& collective, CheckpointState* state, Policy* policy, AdamW* optimizer);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RUN_SHARE_STATE_H_
