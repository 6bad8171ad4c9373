#include "learner/rpc/job_reporter.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/log/log.h"
#include "common/time/clock.h"
#include "common/time/retry.h"
#include "learner/rpc/job_messages.h"

namespace sluice::learner {
namespace {

// Well below what the coordinator takes at once.
constexpr int kPointsPerReport = 500;
constexpr int kLinesPerReport = 500;
constexpr absl::Duration kReportTimeout = absl::Seconds(5);

}  // namespace

JobReporter::JobReporter(MemberClient* client, std::string job_id, uint64_t epoch, JobReporterOptions options)
    : client_(client), job_id_(std::move(job_id)), epoch_(epoch), options_(options) {
  thread_ = StartThread("job-report", [this] { Loop(); });
}

JobReporter::~JobReporter() {
  {
    MutexLock lock(&mutex_);
    stopped_ = true;
    changed_.NotifyAll();
  }
  thread_.Join();
}

void JobReporter::ReportMetrics(uint64_t step, uint64_t total_steps, const std::map<std::string, double>& values) {
  v1::MetricsPoint point;
  point.set_step(step);
  point.set_total_steps(total_steps);
  for (const auto& [name, value] : values) (*point.mutable_values())[name] = value;
  MutexLock lock(&mutex_);
  if (points_.size() >= options_.max_points) {
    points_.pop_front();
    ++dropped_;
  }
  points_.push_back(std::move(point));
}

void JobReporter::ReportLog(const std::string& level, const std::string& text, LineCause cause) {
  v1::LogLine line;
  line.set_level(level);
  line.set_text(text);
  line.set_role("learner");
  line.set_rank(options_.rank);
  if (cause == LineCause::kOwn) line.set_cause(v1::LogLine::CAUSE_OWN);
  if (cause == LineCause::kPeer) line.set_cause(v1::LogLine::CAUSE_PEER);
  MutexLock lock(&mutex_);
  AddLineLocked(std::move(line));
}

void JobReporter::ReportActorLines(const std::vector<JobLine>& lines) {
  for (const JobLine& said : lines) {
    v1::LogLine line;
    line.set_level(said.level);
    line.set_text(said.text);
    line.set_role("actor");
    line.set_rank(options_.rank);
    line.set_source(said.source);
    SetTime(said.time, line.mutable_said());
    MutexLock lock(&mutex_);
    AddLineLocked(std::move(line));
  }
}

void JobReporter::AddLineLocked(v1::LogLine line) {
  if (lines_.size() >= options_.max_lines) {
    lines_.pop_front();
    ++dropped_;
  }
  lines_.push_back(std::move(line));
}

void JobReporter::ReportResult(const std::string& name, const std::string& value) {
  MutexLock lock(&mutex_);
  (*rest_.mutable_results())[name] = value;
  has_rest_ = true;
}

void JobReporter::ReportCheckpoint(const std::string& folder, uint64_t policy_version, const LedgerBalance& balance) {
  MutexLock lock(&mutex_);
  rest_.set_last_checkpoint(folder);
  rest_.set_policy_version(policy_version);
  *rest_.mutable_ledger() = ToMessage(balance);
  has_rest_ = true;
}

bool JobReporter::HasWorkLocked() const {
  return fatal_.ok() && (!points_.empty() || !lines_.empty() || has_rest_ || dropped_ > 0);
}

bool JobReporter::NextLocked(v1::JobReport* report) {
  if (!HasWorkLocked()) return false;
  *report = std::move(rest_);
  rest_ = v1::JobReport();
  has_rest_ = false;
  report->set_job_id(job_id_);
  report->set_epoch(epoch_);
  report->set_report_id(absl::StrCat(client_->member_id(), "/", epoch_, "/", ++reports_));
  if (dropped_ > 0) {
    v1::LogLine* line = report->add_logs();
    line->set_level("warning");
    line->set_role("learner");
    line->set_rank(options_.rank);
    line->set_text(absl::StrCat(dropped_, " earlier lines and metrics were dropped while the coordinator was away"));
    dropped_ = 0;
  }
  for (int i = 0; i < kPointsPerReport && !points_.empty(); ++i) {
    *report->add_metrics() = std::move(points_.front());
    points_.pop_front();
  }
  for (int i = 0; i < kLinesPerReport && !lines_.empty(); ++i) {
    *report->add_logs() = std::move(lines_.front());
    lines_.pop_front();
  }
  return true;
}

void JobReporter::Loop() {
  v1::JobReport report;
  bool pending = false;  // `report` has not arrived yet; sent again under the same id
  while (true) {
    {
      MutexLock lock(&mutex_);
      if (!stopped_ && !(flushing_ && HasWorkLocked() && !pending)) changed_.WaitFor(&mutex_, options_.interval);
      if (stopped_) return;
      if (!pending) pending = NextLocked(&report);
      sending_ = pending;
      if (!pending) {
        changed_.NotifyAll();
        continue;
      }
    }
    const absl::StatusOr<bool> sent = client_->SendReport(report, kReportTimeout);
    if (sent.ok() && *sent) cancel_requested_ = true;
    pending = !sent.ok() && IsRetryable(sent.status());
    MutexLock lock(&mutex_);
    sending_ = pending;
    if (!sent.ok() && !pending) {
      LogWarning("the coordinator refused a report", {{"job", job_id_}, {"error", sent.status().ToString()}});
      // A bad report is one report's loss; a lost epoch is the end of all.
      if (sent.status().code() == absl::StatusCode::kAborted) fatal_ = sent.status();
    }
    changed_.NotifyAll();
  }
}

absl::Status JobReporter::Flush(absl::Duration timeout) {
  const absl::Time until = MonotonicNow() + timeout;
  MutexLock lock(&mutex_);
  flushing_ = true;
  changed_.NotifyAll();
  while (fatal_.ok() && !stopped_ && (HasWorkLocked() || sending_)) {
    const absl::Duration left = until - MonotonicNow();
    if (left <= absl::ZeroDuration()) break;
    changed_.WaitFor(&mutex_, left);
  }
  flushing_ = false;
  if (!fatal_.ok()) return fatal_;
  if (!HasWorkLocked() && !sending_) return absl::OkStatus();
  return absl::DeadlineExceededError(absl::StrCat("reports of job ", job_id_, " have not arrived at the coordinator"));
}

}  // namespace sluice::learner
