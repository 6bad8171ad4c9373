// `sluice-learner report RUN...`: one HTML page over ended runs.
#ifndef SLUICE_LEARNER_REPORT_COMMAND_H_
#define SLUICE_LEARNER_REPORT_COMMAND_H_

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace sluice::learner {

struct ReportFlags {
  std::vector<std::string> run_folders;
  std::string output = "report.html";
  std::string title = "Sluice";
};

absl::Status ReportCommand(const ReportFlags& flags);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_REPORT_COMMAND_H_
