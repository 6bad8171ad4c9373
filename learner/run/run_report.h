// The HTML report of one or several runs, from what their folders hold: results.json, metrics.jsonl, spec.yaml.
#ifndef SLUICE_LEARNER_RUN_RUN_REPORT_H_
#define SLUICE_LEARNER_RUN_RUN_REPORT_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "learner/report/report.h"
#include "learner/run/run_folder.h"

namespace sluice::learner {

// Evaluations become rows of the closing table (the co-occurrence rule comes once, first), training runs become curves,
// rl runs also the ledger's balance. NotFound: a folder without results.json: the run has not ended.
absl::StatusOr<ReportData> BuildReport(const std::string& title, absl::Span<const std::string> run_folders);

// BuildReport of one run, written to its report.html.
absl::Status WriteRunReport(const RunFolder& folder, const std::string& title);

// Mean of a metric over the lines that have it. NotFound if none has.
absl::StatusOr<double> MeanOfMetric(const RunFolder& folder, const std::string& name);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RUN_RUN_REPORT_H_
