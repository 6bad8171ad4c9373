#include "learner/report_command.h"

#include <cstdio>

#include "common/status/status.h"
#include "learner/report/report.h"
#include "learner/run/run_report.h"

namespace sluice::learner {

absl::Status ReportCommand(const ReportFlags& flags) {
  SLUICE_ASSIGN_OR_RETURN(const ReportData report, BuildReport(flags.title, flags.run_folders));
  SLUICE_RETURN_IF_ERROR(WriteReport(flags.output, report));
  std::printf("%s\n", flags.output.c_str());
  return absl::OkStatus();
}

}  // namespace sluice::learner
