// `sluice-learner replay RUN` and `sluice-learner advise RUN`: what other gates would have admitted of a run's recorded
// groups, and what the record says of the ranker.
#ifndef SLUICE_LEARNER_REPLAY_COMMAND_H_
#define SLUICE_LEARNER_REPLAY_COMMAND_H_

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace sluice::learner {

struct ReplayFlags {
  std::string run_folder;
  std::vector<std::string> overrides;  // --set rl.gate.threshold=.8
  // Every combination is asked; an empty list is the recorded setting.
  std::vector<std::string> kinds;
  std::vector<double> taus;
  std::vector<double> rhos;
  std::vector<int> negatives;
  bool json = false;
};

// Prints one row for the recorded settings, then one a combination.
absl::Status ReplayCommand(const ReplayFlags& flags);

struct AdviseFlags {
  std::string run_folder;
  std::string gains;  // CSV of measured gains; empty: none
  bool json = false;
};

absl::Status AdviseCommand(const AdviseFlags& flags);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_REPLAY_COMMAND_H_
