#include "common/time/retry.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/status/exit_code.h"
#include "common/status/status.h"
#include "common/time/backoff.h"

namespace sluice {

bool IsRetryable(const absl::Status& status) {
  if (absl::IsResourceExhausted(status)) return ExitCodeFor(status) != ExitCode::kNoSpace;
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status);
}

absl::Duration BackoffDelay(const RetryOptions& options, int retry, double uniform) {
  return RetryDelay(retry - 1, uniform,
                    {.first = options.initial_backoff, .max = options.max_backoff, .multiplier = options.multiplier});
}

absl::Status CallWithRetry(const RetryOptions& options, const NowFunction& now, const WaitFunction& wait,
                           Random* random, const std::function<absl::Status(absl::Duration timeout)>& call) {
  const absl::Time deadline = now() + options.total_timeout;
  for (int attempt = 1;; ++attempt) {
    absl::Status status = call(std::min(options.attempt_timeout, deadline - now()));
    if (status.ok() || !IsRetryable(status)) return status;
    const absl::Duration delay = BackoffDelay(options, attempt, random->Uniform());
    if (now() + delay >= deadline) return Annotate(status, absl::StrCat("gave up after ", attempt, " attempts"));
    if (!wait(delay)) {
      return absl::CancelledError(absl::StrCat("stopped while retrying; the last error was: ", status.message()));
    }
  }
}

}  // namespace sluice
