// What a one-shot run (`sluice-learner run SPEC`) puts in the coordinator's place: progress on standard error, durable
// counters in the run folder.
#ifndef SLUICE_LEARNER_RUN_LOCAL_SERVICES_H_
#define SLUICE_LEARNER_RUN_LOCAL_SERVICES_H_

#include <atomic>
#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "common/progress/progress.h"
#include "common/sync/mutex.h"
#include "learner/run/run_context.h"

namespace sluice::learner {

// Prints progress and results. Thread-safe.
class ConsoleMonitor : public JobMonitor {
 public:
  // `unit` of the job's steps ("steps", "users"). `stop` is set by a signal; it must outlive this object.
  ConsoleMonitor(std::string unit, const std::atomic<int>* stop, NowFunction now)
      : unit_(std::move(unit)), stop_(stop), printer_(std::move(now)) {}

  void SetPhase(const std::string& phase) override;
  void ReportMetrics(uint64_t step, uint64_t total_steps, const std::map<std::string, double>& values) override;
  void ReportLog(const std::string& text) override;
  void ReportResult(const std::string& key, const std::string& value) override;
  void ReportCheckpoint(const std::string& folder, uint64_t step, uint64_t policy_version,
                        const LedgerBalance& ledger) override;
  StopRequest stop() const override { return static_cast<StopRequest>(stop_->load()); }

 private:
  const std::string unit_;
  const std::atomic<int>* const stop_;
  mutable Mutex mutex_;
  std::string phase_ ABSL_GUARDED_BY(mutex_) = "starting";
  ProgressPrinter printer_ ABSL_GUARDED_BY(mutex_);
};

// Policy versions counted in `run_folder`/policy_version. Not thread-safe.
class LocalReservations : public Reservations {
 public:
  explicit LocalReservations(std::string run_folder) : run_folder_(std::move(run_folder)) {}
  absl::StatusOr<uint64_t> NextPolicyVersion(uint64_t after) override;
  absl::Status ReserveOrdinals(uint64_t step, uint64_t first, uint64_t count) override;

 private:
  const std::string run_folder_;
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RUN_LOCAL_SERVICES_H_
