// Carries what a running job tells (metrics, lines, results, checkpoints) to the coordinator, off the training
// thread. Reports are batched, retried until they arrive, and applied once each.
#ifndef SLUICE_LEARNER_RPC_JOB_REPORTER_H_
#define SLUICE_LEARNER_RPC_JOB_REPORTER_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/job_lines/job_lines.h"
#include "common/sync/mutex.h"
#include "common/sync/thread.h"
#include "learner/job/job.h"
#include "learner/rpc/member_client.h"
#include "sluice/v1/member.pb.h"

namespace sluice::learner {

struct JobReporterOptions {
  absl::Duration interval = absl::Milliseconds(500);
  // While the coordinator is away so much is kept; then the oldest points and lines go, and a line says how many.
  size_t max_points = 5000;
  size_t max_lines = 5000;
  int rank = 0;  // that the lines come from
};

// One job in one epoch. Thread-safe; never blocks but in Flush.
class JobReporter {
 public:
  // `client` outlives the reporter.
  JobReporter(MemberClient* client, std::string job_id, uint64_t epoch, JobReporterOptions options = {});
  // Sends nothing more: Flush first.
  ~JobReporter();

  void ReportMetrics(uint64_t step, uint64_t total_steps, const std::map<std::string, double>& values);
  // `cause`: whether the line tells why the job stopped on this rank.
  void ReportLog(const std::string& level, const std::string& text, LineCause cause = LineCause::kNone);
  // What actors of this rank say.
  void ReportActorLines(const std::vector<JobLine>& lines);
  void ReportResult(const std::string& name, const std::string& value);
  void ReportCheckpoint(const std::string& folder, uint64_t policy_version, const LedgerBalance& balance);

  // Waits until everything reported so far has arrived. DeadlineExceeded if it has not; Aborted if the epoch is over.
  absl::Status Flush(absl::Duration timeout);
  // The coordinator said so in answer to a report; the view of the client says it too.
  bool cancel_requested() const { return cancel_requested_; }

 private:
  void Loop();
  void AddLineLocked(v1::LogLine line) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The next report, or false if there is nothing to tell.
  bool NextLocked(v1::JobReport* report) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool HasWorkLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  MemberClient* const client_;
  const std::string job_id_;
  const uint64_t epoch_;
  const JobReporterOptions options_;
  std::atomic<bool> cancel_requested_{false};

  Mutex mutex_;
  CondVar changed_;
  std::deque<v1::MetricsPoint> points_ ABSL_GUARDED_BY(mutex_);
  std::deque<v1::LogLine> lines_ ABSL_GUARDED_BY(mutex_);
  v1::JobReport rest_ ABSL_GUARDED_BY(mutex_);  // results, checkpoint, ledger: the latest values
  bool has_rest_ ABSL_GUARDED_BY(mutex_) = false;
  size_t dropped_ ABSL_GUARDED_BY(mutex_) = 0;
  bool sending_ ABSL_GUARDED_BY(mutex_) = false;
  bool flushing_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status fatal_ ABSL_GUARDED_BY(mutex_);  // the coordinator takes no more reports of this job and epoch
  uint64_t reports_ ABSL_GUARDED_BY(mutex_) = 0;
  Thread thread_;
};

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_RPC_JOB_REPORTER_H_
