// Arms of a comparison as people write them: "JOB", "JOB,JOB" for seeds of one arm, "NAME=JOB,JOB".
#ifndef SLUICE_LEARNER_EVALUATE_ARM_TEXT_H_
#define SLUICE_LEARNER_EVALUATE_ARM_TEXT_H_

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "learner/evaluate/compare.h"

namespace sluice::learner {

// `outcomes` reads one job's; its errors are returned.
using OutcomeReader = std::function<absl::StatusOr<OutcomeTable>(const std::string& job)>;
absl::StatusOr<ComparedArm> ArmFromText(const std::string& text, const OutcomeReader& outcomes);

// Places of the arms with these names, or numbers from 1. InvalidArgument: there is none of it.
absl::StatusOr<std::vector<size_t>> PlacesOfArms(const std::vector<std::string>& wanted,
                                                 const std::vector<ComparedArm>& arms);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_EVALUATE_ARM_TEXT_H_
