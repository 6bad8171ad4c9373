// The HTML report of one or several runs, from what their folders hold: results.json, metrics.jsonl, spec.yaml.
#ifndef SLUICE_LEARNER_RUN_RUN_REPORT_H_
#define SLUICE_LEARNER_RUN_RUN_REPORT_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "learner/report/report.h"
#include "learner/run/results.h"
#include "learner/run/run_context.h"
#include "learner/run/run_folder.h"

namespace sluice::learner {

// Where a job ran and with what: texts of results.json under keys that begin with kEnvironmentPrefix, which the report
// shows wherever it is made.
inline constexpr char kEnvironmentPrefix[] = "environment/";
void AddEnvironment(const RunContext& context, RunResults* results);

// Evaluations become rows of the closing table (the co-occurrence rule comes once, first), training runs become curves,
// rl runs also the ledger's balance; the examples of runs that were of the same users stand side by side. NotFound: a
// folder without results.json: the run has not ended.
absl::StatusOr<ReportData> BuildReport(const std::string& title, absl::Span<const std::string> run_folders);

// BuildReport of one run, written to its report.html.
absl::Status WriteRunReport(const RunFolder& folder, const std::string& title);

// Mean of a metric over the lines that have it. NotFound if none has.
absl::StatusOr<double> MeanOfMetric(const RunFolder& folder, const std::string& name);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RUN_RUN_REPORT_H_
