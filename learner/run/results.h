// results.json: the closing numbers of a run, for people, reports and comparisons.
#ifndef SLUICE_LEARNER_RUN_RESULTS_H_
#define SLUICE_LEARNER_RUN_RESULTS_H_

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace sluice::learner {

// Groups of numbers ("metrics", "baseline", "best", "final") and texts (paths, names).
struct RunResults {
  std::string kind;  // of job
  std::map<std::string, std::map<std::string, double>> numbers;
  std::map<std::string, std::string> texts;
};

// Written atomically. Numbers that are not finite are left out.
absl::Status WriteResults(const std::string& path, const RunResults& results);
// DataLoss: not what WriteResults writes.
absl::StatusOr<RunResults> ReadResults(const std::string& path);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RUN_RESULTS_H_
