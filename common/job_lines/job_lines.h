// What actors say about a job, on its way into the job's log (`sluicectl logs`): an actor keeps it until a heartbeat
// takes it to its rank, the rank until it reports to the coordinator.
//
// Best effort: who speaks never waits, and what is too much is left out and counted. Only what is handed to Tell
// travels, sentences about the job that were written for it, and never a process's own log.
#ifndef SLUICE_COMMON_JOB_LINES_JOB_LINES_H_
#define SLUICE_COMMON_JOB_LINES_JOB_LINES_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/security/rate_limiter.h"
#include "common/sync/mutex.h"
#include "common/time/clock.h"

namespace sluice {

struct JobLine {
  std::string job_id;
  std::string source;  // the actor; empty: who holds the lines
  std::string level;   // "info", "warning", "error"
  std::string text;
  absl::Time time;  // when it was said, wall clock of who said it
};

// The defaults are an actor's.
struct JobLinesOptions {
  size_t max_waiting = 100;
  size_t max_bytes = 500;  // of a text; the rest is cut off
  // After some quiet; they come back at `per_second`.
  double burst = 40;
  double per_second = 1;
};

// Thread-safe.
class JobLines {
 public:
  // `now` must not jump when a clock is set.
  JobLines(JobLinesOptions options, NowFunction now);

  void Tell(JobLine line);

  // The oldest `max` lines about this job; those about others that came before are forgotten. When some were left out,
  // the last one says how many.
  std::vector<JobLine> Take(absl::string_view job_id, size_t max);

 private:
  const JobLinesOptions options_;
  RateLimiter limiter_;

  Mutex mutex_;
  std::deque<JobLine> waiting_ ABSL_GUARDED_BY(mutex_);
  uint64_t left_out_ ABSL_GUARDED_BY(mutex_) = 0;
  std::string left_out_job_ ABSL_GUARDED_BY(mutex_);  // whose they were
  absl::Time left_out_at_ ABSL_GUARDED_BY(mutex_);    // the last of them
};

}  // namespace sluice

#endif  // SLUICE_COMMON_JOB_LINES_JOB_LINES_H_
