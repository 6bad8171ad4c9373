#include "learner/rpc/job_messages.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace sluice::learner {
namespace {

constexpr int kMaxPoints = 1000;
constexpr int kMaxValues = 256;
constexpr int kMaxLines = 1000;
constexpr int kMaxResults = 64;
constexpr size_t kMaxNameBytes = 128;
constexpr size_t kMaxLineBytes = 8192;
constexpr size_t kMaxResultBytes = 64 << 10;

absl::Status AtMost(absl::string_view what, size_t limit, size_t size) {
  if (size <= limit) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("report: want at most ", limit, " ", what, ", got ", size));
}

absl::Status CheckReport(const v1::JobReport& message) {
  if (message.report_id().empty() || message.report_id().size() > kMaxNameBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("report_id: want 1 to ", kMaxNameBytes, " bytes, got ", message.report_id().size()));
  }
  absl::Status status = AtMost("points of metrics", kMaxPoints, message.metrics_size());
  status.Update(AtMost("lines", kMaxLines, message.logs_size()));
  status.Update(AtMost("results", kMaxResults, message.results_size()));
  for (const v1::MetricsPoint& point : message.metrics()) {
    status.Update(AtMost("metrics in a point", kMaxValues, point.values_size()));
    for (const auto& [name, value] : point.values()) {
      status.Update(AtMost("bytes in a metric's name", kMaxNameBytes, name.size()));
    }
  }
  for (const auto& [name, value] : message.results()) {
    status.Update(AtMost("bytes in a result's name", kMaxNameBytes, name.size()));
    status.Update(AtMost("bytes in a result", kMaxResultBytes, value.size()));
  }
  return status;
}

}  // namespace

v1::JobState ToMessage(JobState state) {
  switch (state) {
    case JobState::kQueued:
      return v1::JOB_STATE_QUEUED;
    case JobState::kRunning:
      return v1::JOB_STATE_RUNNING;
    case JobState::kPaused:
      return v1::JOB_STATE_PAUSED;
    case JobState::kSucceeded:
      return v1::JOB_STATE_SUCCEEDED;
    case JobState::kFailed:
      return v1::JOB_STATE_FAILED;
    case JobState::kCancelled:
      return v1::JOB_STATE_CANCELLED;
    case JobState::kHeld:
      return v1::JOB_STATE_HELD;
  }
  return v1::JOB_STATE_UNSPECIFIED;
}

v1::JobSummary SummaryMessage(const JobRecord& job) {
  v1::JobSummary summary;
  summary.set_job_id(job.id);
  summary.set_name(job.name);
  summary.set_kind(static_cast<v1::JobKind>(job.kind));
  summary.set_state(ToMessage(job.state));
  SetTime(job.submitted, summary.mutable_submitted());
  if (job.started != absl::InfinitePast()) SetTime(job.started, summary.mutable_started());
  if (job.ended != absl::InfinitePast()) SetTime(job.ended, summary.mutable_ended());
  summary.set_step(job.step);
  summary.set_total_steps(job.total_steps);
  summary.set_message(job.message);
  summary.set_exit_code(job.exit_code);
  return summary;
}

v1::JobEvent ToMessage(const JobEvent& event) {
  v1::JobEvent message;
  message.set_sequence(event.sequence);
  SetTime(event.time, message.mutable_time());
  if (const auto* state = std::get_if<StateChanged>(&event.what)) {
    message.mutable_state()->set_state(ToMessage(state->state));
    message.mutable_state()->set_message(state->message);
    message.mutable_state()->set_exit_code(state->exit_code);
  } else if (const auto* point = std::get_if<MetricsPoint>(&event.what)) {
    message.mutable_metrics()->set_step(point->step);
    message.mutable_metrics()->set_total_steps(point->total_steps);
    for (const auto& [name, value] : point->values) (*message.mutable_metrics()->mutable_values())[name] = value;
  } else {
    const auto& line = std::get<LogLine>(event.what);
    message.mutable_log()->set_level(line.level);
    message.mutable_log()->set_text(line.text);
    message.mutable_log()->set_role(line.role);
    message.mutable_log()->set_rank(line.rank);
    message.mutable_log()->set_source(line.source);
    if (line.said) SetTime(*line.said, message.mutable_log()->mutable_said());
    message.mutable_log()->set_cause(line.cause == LineCause::kOwn    ? v1::LogLine::CAUSE_OWN
                                     : line.cause == LineCause::kPeer ? v1::LogLine::CAUSE_PEER
                                                                      : v1::LogLine::CAUSE_UNSPECIFIED);
  }
  return message;
}

v1::LedgerBalance ToMessage(const LedgerBalance& balance) {
  v1::LedgerBalance message;
  message.set_issued(balance.issued);
  message.set_trained(balance.trained);
  message.set_dropped(balance.dropped);
  message.set_failed(balance.failed);
  message.set_cancelled(balance.cancelled);
  message.set_open(balance.open);
  message.set_frontier(balance.frontier);
  return message;
}

LedgerBalance FromMessage(const v1::LedgerBalance& message) {
  LedgerBalance balance;
  balance.issued = message.issued();
  balance.trained = message.trained();
  balance.dropped = message.dropped();
  balance.failed = message.failed();
  balance.cancelled = message.cancelled();
  balance.open = message.open();
  balance.frontier = message.frontier();
  return balance;
}

absl::StatusOr<JobReport> FromMessage(const v1::JobReport& message) {
  const absl::Status status = CheckReport(message);
  if (!status.ok()) return status;
  JobReport report;
  report.report_id = message.report_id();
  report.epoch = message.epoch();
  for (const v1::MetricsPoint& point : message.metrics()) {
    report.metrics.push_back({point.step(), point.total_steps(),
                              std::map<std::string, double>(point.values().begin(), point.values().end())});
  }
  for (const v1::LogLine& line : message.logs()) {
    LogLine kept{line.level(), line.text().substr(0, kMaxLineBytes)};
    if (!line.role().empty()) kept.role = line.role().substr(0, kMaxNameBytes);
    kept.rank = line.rank();
    kept.source = line.source().substr(0, kMaxNameBytes);
    if (line.has_said()) {
      kept.said = TimeOf(line.said());
    }
    if (line.cause() == v1::LogLine::CAUSE_OWN) kept.cause = LineCause::kOwn;
    if (line.cause() == v1::LogLine::CAUSE_PEER) kept.cause = LineCause::kPeer;
    report.logs.push_back(std::move(kept));
  }
  report.results = std::map<std::string, std::string>(message.results().begin(), message.results().end());
  report.last_checkpoint = message.last_checkpoint();
  report.policy_version = message.policy_version();
  report.has_balance = message.has_ledger();
  report.balance = FromMessage(message.ledger());
  return report;
}

absl::StatusOr<JobInput> OutcomeFromMessage(v1::JobState state) {
  switch (state) {
    case v1::JOB_STATE_QUEUED:
      return JobInput::kPreempt;
    case v1::JOB_STATE_SUCCEEDED:
      return JobInput::kSucceed;
    case v1::JOB_STATE_FAILED:
      return JobInput::kFail;
    case v1::JOB_STATE_CANCELLED:
      return JobInput::kCancelled;
    case v1::JOB_STATE_HELD:
      return JobInput::kHold;
    default:
      return absl::InvalidArgumentError(absl::StrCat("state: want an outcome or QUEUED, got the number ", state));
  }
}

}  // namespace sluice::learner
