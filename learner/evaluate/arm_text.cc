#include "learner/evaluate/arm_text.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/status/status.h"

namespace sluice::learner {
namespace {

absl::StatusOr<size_t> PlaceOf(const std::string& wanted, const std::vector<ComparedArm>& arms) {
  std::vector<std::string> names;
  for (size_t i = 0; i < arms.size(); ++i) {
    if (arms[i].name == wanted) return i;
    names.push_back(arms[i].name);
  }
  size_t number = 0;
  if (absl::SimpleAtoi(wanted, &number) && number >= 1 && number <= arms.size()) return number - 1;
  return absl::InvalidArgumentError(
      absl::StrCat("--against '", wanted, "' is none of the arms ", absl::StrJoin(names, ", ")));
}

}  // namespace

absl::StatusOr<ComparedArm> ArmFromText(const std::string& text, const OutcomeReader& outcomes) {
  ComparedArm arm;
  const size_t equals = text.find('=');
  arm.name = text.substr(0, equals);
  const std::string jobs = equals == std::string::npos ? text : text.substr(equals + 1);
  for (const absl::string_view job : absl::StrSplit(jobs, ',', absl::SkipEmpty())) {
    SLUICE_ASSIGN_OR_RETURN(arm.runs.emplace_back(), outcomes(std::string(job)));
  }
  return arm;
}

absl::StatusOr<std::vector<size_t>> PlacesOfArms(const std::vector<std::string>& wanted,
                                                 const std::vector<ComparedArm>& arms) {
  std::vector<size_t> places;
  for (const std::string& one : wanted) {
    SLUICE_ASSIGN_OR_RETURN(places.emplace_back(), PlaceOf(one, arms));
  }
  return places;
}

}  // namespace sluice::learner
