#include "actor/rollout/job_backoff.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"

namespace sluice::actor {

bool FailureLog::Note(absl::string_view job, absl::string_view cause) {
  std::string words(cause);
  words.erase(std::remove_if(words.begin(), words.end(), absl::ascii_isdigit), words.end());
  const bool same_job = failures_ > 0 && job == job_;
  const bool same_cause = same_job && words == cause_;
  failures_ = same_job ? failures_ + 1 : 1;
  job_ = std::string(job);
  cause_ = std::move(words);
  return !same_cause || (failures_ & (failures_ - 1)) == 0;
}

bool JobBackoff::MayTry(absl::string_view job, absl::Time now) const {
  return log_.failures() == 0 || job != log_.job() || now >= until_;
}

JobBackoff::Verdict JobBackoff::Failed(absl::string_view job, absl::string_view cause, absl::Time now, double uniform) {
  Verdict verdict;
  verdict.tell = log_.Note(job, cause);
  verdict.failures = log_.failures();
  // RetryDelay grows no further than this number of doublings anyway.
  verdict.delay = RetryDelay(static_cast<int>(std::min<uint64_t>(verdict.failures - 1, 60)), uniform, kDelays);
  until_ = now + verdict.delay;
  return verdict;
}

}  // namespace sluice::actor
