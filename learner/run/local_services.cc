#include "learner/run/local_services.h"

#include <algorithm>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/file/file.h"
#include "common/status/status.h"

namespace sluice::learner {
namespace {

// What a progress line shows, in this order, if the job reports it.
constexpr const char* kShown[] = {"loss/nll", "loss/grpo", "gate/open_rate", "validation/hr@10", "hr@10"};

std::string Shown(const std::map<std::string, double>& values) {
  std::vector<std::string> parts;
  for (const char* name : kShown) {
    const auto found = values.find(name);
    if (found != values.end()) parts.push_back(absl::StrFormat("%s %.4f", name, found->second));
  }
  return absl::StrJoin(parts, ", ");
}

}  // namespace

void ConsoleMonitor::SetPhase(const std::string& phase) {
  MutexLock lock(&mutex_);
  phase_ = phase;
}

void ConsoleMonitor::ReportMetrics(uint64_t step, uint64_t total_steps, const std::map<std::string, double>& values) {
  MutexLock lock(&mutex_);
  printer_.Update(phase_, unit_, static_cast<int64_t>(step), static_cast<int64_t>(total_steps), Shown(values));
}

void ConsoleMonitor::ReportLog(const std::string& text) {
  MutexLock lock(&mutex_);
  printer_.Print(text);
}

void ConsoleMonitor::ReportResult(const std::string& key, const std::string& value) {
  MutexLock lock(&mutex_);
  printer_.Print(absl::StrCat(key, ": ", value));
}

void ConsoleMonitor::ReportCheckpoint(const std::string& folder, uint64_t step, uint64_t policy_version,
                                      const LedgerBalance& ledger) {
  (void)policy_version;
  (void)ledger;
  MutexLock lock(&mutex_);
  printer_.Print(absl::StrCat("checkpoint of step ", step, ": ", folder));
}

absl::StatusOr<uint64_t> LocalReservations::NextPolicyVersion(uint64_t after) {
  const std::string path = JoinPath(run_folder_, "policy_version");
  uint64_t last = 0;
  if (PathExists(path)) {
    SLUICE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, 64));
    if (!absl::SimpleAtoi(text, &last)) {
      return absl::DataLossError(absl::StrCat("'", path,
                                              "' holds no number; restore it from a backup, or delete the "
                                              "run folder and start again"));
    }
  }
  const uint64_t next = std::max(last, after) + 1;
  SLUICE_RETURN_IF_ERROR(WriteFileAtomically(path, absl::StrCat(next)));
  return next;
}

absl::Status LocalReservations::ReserveOrdinals(uint64_t step, uint64_t first, uint64_t count) {
  // Nobody else can issue here: the order of ordinals is a function of the step, and the checkpoint holds the step.
  (void)step;
  (void)first;
  (void)count;
  return absl::OkStatus();
}

}  // namespace sluice::learner
