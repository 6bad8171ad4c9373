// The kinds of jobs. RunJob (run_context.h) picks one.
#ifndef SLUICE_LEARNER_RUN_JOBS_H_
#define SLUICE_LEARNER_RUN_JOBS_H_

#include "absl/status/status.h"
#include "learner/run/run_context.h"

namespace sluice::learner {

// Events to a data set folder: filter, split, semantic IDs, rankers. Rank 0 works, the others wait.
absl::Status RunPrepare(const RunContext& context);

// Next-item NLL on whole sequences, warm-up and cosine, early stop on validation.
absl::Status RunSft(const RunContext& context);

// Gated policy optimisation with actors and a reward server.
absl::Status RunRl(const RunContext& context);

// Metrics of a policy on a split, with the co-occurrence rule beside them.
absl::Status RunEvaluate(const RunContext& context);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RUN_JOBS_H_
