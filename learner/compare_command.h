// `sluice-learner compare`: which differences between evaluated policies are real.
#ifndef SLUICE_LEARNER_COMPARE_COMMAND_H_
#define SLUICE_LEARNER_COMPARE_COMMAND_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace sluice::learner {

struct CompareFlags {
  // Arms: run folders or job ids, several seeds of one arm joined by commas, each with NAME= before it or without.
  std::vector<std::string> arms;
  std::string runs_folder = "runs";  // where job ids are looked up
  std::vector<std::string> against;  // names or numbers (from 1) of arms; none: the first
  std::vector<std::string> metrics;  // none: hr, ndcg, mrr at every cutoff
  int resamples = 2000;
  double confidence = 0.95;
  uint64_t seed = 1;
  // Run folder or job id of an rl job with contexts.csv: compares in each cell of the stratified analysis. Empty: over
  // all users.
  std::string cells;
  std::string json;  // also written here; empty: not
};

// Prints the comparison. NotFound: no outcomes at one of the places; errors of Compare.
absl::Status CompareCommand(const CompareFlags& flags);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_COMPARE_COMMAND_H_
