// What a run ran on, for its report.
#ifndef SLUICE_LEARNER_REPORT_ENVIRONMENT_H_
#define SLUICE_LEARNER_REPORT_ENVIRONMENT_H_

#include <vector>

#include "absl/strings/string_view.h"
#include "learner/report/report.h"

namespace sluice::learner {

// This machine and this build: release, compiler, system, processor, memory. What cannot be found out is left out.
std::vector<ReportFact> MachineFacts();

// The value of the first line "name : value" of a file like /proc/cpuinfo; empty if there is none.
std::string ValueOfLine(absl::string_view text, absl::string_view name);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_REPORT_ENVIRONMENT_H_
