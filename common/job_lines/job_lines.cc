#include "common/job_lines/job_lines.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log/one_line.h"

namespace sluice {
JobLines::JobLines(JobLinesOptions options, NowFunction now)
    : options_(options), limiter_({.per_second = options.per_second, .burst = options.burst}, std::move(now)) {}

void JobLines::Tell(JobLine line) {
  const bool may = limiter_.Take("") == absl::ZeroDuration();
  line.text = OneLine(line.text, options_.max_bytes);
  MutexLock lock(&mutex_);
  if (!may || waiting_.size() >= options_.max_waiting) {
    left_out_ = left_out_job_ == line.job_id ? left_out_ + 1 : 1;
    left_out_job_ = std::move(line.job_id);
    left_out_at_ = line.time;
    return;
  }
  waiting_.push_back(std::move(line));
}

std::vector<JobLine> JobLines::Take(absl::string_view job_id, size_t max) {
  std::vector<JobLine> lines;
  MutexLock lock(&mutex_);
  while (!waiting_.empty() && lines.size() < max) {
    if (waiting_.front().job_id == job_id) lines.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
  }
  if (left_out_job_ != job_id) left_out_ = 0;
  if (left_out_ > 0 && lines.size() < max) {
    const std::string text = absl::StrCat(left_out_, left_out_ == 1 ? " line" : " lines", " left out");
    lines.push_back({std::string(job_id), "", "warning", text, left_out_at_});
    left_out_ = 0;
  }
  return lines;
}

}  // namespace sluice
