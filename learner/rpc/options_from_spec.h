// A completed job spec as the learner's plain options.
#ifndef SLUICE_LEARNER_RPC_OPTIONS_FROM_SPEC_H_
#define SLUICE_LEARNER_RPC_OPTIONS_FROM_SPEC_H_

#include "absl/status/statusor.h"
#include "learner/options/options.h"
#include "sluice/v1/spec.pb.h"

namespace sluice::learner {

// Checks and completes `spec` (given or effective) by the rules of common/spec, then copies every key. Sections that
// the kind of job does not read keep their defaults. InvalidArgument: every mistake at once.
absl::StatusOr<JobOptions> OptionsFromSpec(const v1::JobSpec& spec);

// The copy alone, without the check: keys that are absent keep the defaults of options.h.
JobOptions CopyOptions(const v1::JobSpec& effective);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RPC_OPTIONS_FROM_SPEC_H_
