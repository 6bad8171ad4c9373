// The spec of a fork: another job's, with changes, and its checkpoint as the model to begin with.
#ifndef SLUICE_LEARNER_RPC_FORK_SPEC_H_
#define SLUICE_LEARNER_RPC_FORK_SPEC_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "learner/data/data_store.h"
#include "learner/job/job.h"
#include "sluice/v1/spec.pb.h"

namespace sluice::learner {

// What SubmitRequest.spec takes: what the parent's author wrote if that is known (so that defaults which hang on a
// changed key follow it), else its effective spec; then `overrides`, then model.path. `data` may be null.
// InvalidArgument: mistakes, a line each; an override of the model, which is the checkpoint's.
absl::StatusOr<v1::JobSpec> ForkSpec(const JobRecord& parent, const std::vector<std::string>& overrides,
                                     const std::string& model_path, const DataStore* data);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RPC_FORK_SPEC_H_
