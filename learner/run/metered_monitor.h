// A job's progress as metrics: steps, losses, the gate, rewards, validations and checkpoints of the job that runs.
#ifndef SLUICE_LEARNER_RUN_METERED_MONITOR_H_
#define SLUICE_LEARNER_RUN_METERED_MONITOR_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "common/metrics/metrics.h"
#include "common/sync/mutex.h"
#include "common/time/clock.h"
#include "learner/run/run_context.h"

namespace sluice::learner {

// How a job ended here, as the label of sluice_jobs_ended_total: "done", "preempted", "cancelled", "held", "broken"
// (the group broke; it resumes in the next epoch), "no_space" or "failed".
absl::string_view OutcomeName(const absl::Status& status);

// The series of jobs, one set a process however many jobs it runs. A gauge whose value was not measured is NaN, which
// Prometheus keeps apart from 0. Thread-safe.
class JobSeries {
 public:
  // `metrics` outlives this object. `wall` is for timestamps that Prometheus compares with its own clock.
  JobSeries(Metrics* metrics, NowFunction wall);

  void Start();
  void Step(uint64_t step, uint64_t total_steps, const std::map<std::string, double>& values);
  void Checkpoint();
  void Progress();
  void End(const absl::Status& status);

 private:
  struct Value {
    std::string key;  // in metrics.jsonl
    Gauge* gauge;
  };

  double Now() const;

  const NowFunction wall_;
  Gauge* running_;
  Gauge* step_;
  Gauge* total_steps_;
  Gauge* started_;
  Gauge* progressed_;
  Gauge* checkpointed_;
  Counter* steps_;
  Counter* degraded_steps_;
  Counter* checkpoints_;
  Histogram* wait_;
  Histogram* train_;
  std::vector<Value> of_steps_;
  std::vector<Value> of_validations_;
  std::map<std::string, Counter*, std::less<>> ended_;
};

// Passes everything on, and counts it. For the first rank of a job: the others are told nothing. Thread-safe.
class MeteredMonitor : public JobMonitor {
 public:
  // Both outlive this object.
  MeteredMonitor(JobMonitor* next, JobSeries* series);

  // A phase that goes on is no progress: a job that waits for groups says so again and again.
  void SetPhase(const std::string& phase) override;
  void ReportMetrics(uint64_t step, uint64_t total_steps, const std::map<std::string, double>& values) override;
  void ReportLog(const std::string& text) override { next_->ReportLog(text); }
  void ReportResult(const std::string& key, const std::string& value) override { next_->ReportResult(key, value); }
  void ReportCheckpoint(const std::string& folder, uint64_t step, uint64_t policy_version,
                        const LedgerBalance& ledger) override;
  StopRequest stop() const override { return next_->stop(); }

  // The job is over, in this way.
  void End(const absl::Status& status) { series_->End(status); }

 private:
  JobMonitor* const next_;
  JobSeries* const series_;
  Mutex mutex_;
  std::string phase_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RUN_METERED_MONITOR_H_
