// An actor that cannot work on a job (a model that it cannot load, no reward server, another release) is offered it
// again every few seconds for as long as the job runs. This says when it tries again, and when a failure is worth a
// line.
#ifndef SLUICE_ACTOR_ROLLOUT_JOB_BACKOFF_H_
#define SLUICE_ACTOR_ROLLOUT_JOB_BACKOFF_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/time/backoff.h"

namespace sluice::actor {

// Which failures to tell: the first of a job, one with another cause than the one before, and the 2nd, 4th, 8th, ... in
// a row. Causes that differ in their digits alone (a port, a time, a number of tries) are the same. Not thread-safe.
class FailureLog {
 public:
  // Whether this one is to be told.
  bool Note(absl::string_view job, absl::string_view cause);
  // In a row, of whatever cause, of the job of the last one; 0: none.
  uint64_t failures() const { return failures_; }
  const std::string& job() const { return job_; }
  void Reset() { *this = FailureLog(); }

 private:
  std::string job_;
  std::string cause_;  // without digits
  uint64_t failures_ = 0;
};

// Not thread-safe.
class JobBackoff {
 public:
  // At full jitter; rarer than a rank asks from the first failure on. Whoever mends an actor waits for the longest, or
  // starts it anew.
  static constexpr BackoffOptions kDelays = {.first = absl::Seconds(10), .max = absl::Minutes(5)};

  // False while the wait after a failure of this job lasts. Another job may be tried at once.
  bool MayTry(absl::string_view job, absl::Time now) const;

  struct Verdict {
    bool tell = false;      // as FailureLog
    uint64_t failures = 0;  // in a row
    absl::Duration delay;   // until the next try
  };
  // `uniform` in [0, 1) spreads actors that failed together.
  Verdict Failed(absl::string_view job, absl::string_view cause, absl::Time now, double uniform);
  // The actor works on a job, or is welcomed to one: the next failure is a first one.
  void Succeeded() { log_.Reset(); }

 private:
  FailureLog log_;
  absl::Time until_;
};

}  // namespace sluice::actor

#endif  // SLUICE_ACTOR_ROLLOUT_JOB_BACKOFF_H_
