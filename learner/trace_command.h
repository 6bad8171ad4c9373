// `sluice-learner trace RUN ORDINAL...`: what became of single groups of a run, from its folder and actors' journals.
#ifndef SLUICE_LEARNER_TRACE_COMMAND_H_
#define SLUICE_LEARNER_TRACE_COMMAND_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace sluice::learner {

struct TraceFlags {
  std::string run_folder;
  std::vector<uint64_t> ordinals;
  std::vector<std::string> journals;  // files or folders; empty: none
  bool json = false;
};

// Prints the trace as `sluicectl trace` does, but for what only a coordinator knows.
absl::Status TraceCommand(const TraceFlags& flags);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_TRACE_COMMAND_H_
