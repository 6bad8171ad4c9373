// Dynamic batching: groups of many requests are scored together.
//
// A batch closes when the oldest group has waited `max_delay` or enough candidates are queued, whichever is first;
// never "when full" alone, so a lone request waits at most the delay. Batches hold whole groups, in order of arrival.
// A request's groups may fall into several batches; it is answered once, when its last group is done.
//
// The queue is bounded: past it a request is refused at once (ResourceExhausted), with a hint when to come back.
// Requests that expired or were cancelled leave before any computing.
//
// Tuning: raise max_batch_candidates until the time of a batch (sluice_reward_batch_duration_seconds) grows in
// proportion; set max_delay to about that time, between 2 and 5 ms; size the queue to what is computed in half of the
// clients' deadline.
//
// Thread-safe. Submit never blocks. Computing happens in RunOnce or Run, on any number of threads.
#ifndef SLUICE_REWARD_SERVER_BATCH_BATCHER_H_
#define SLUICE_REWARD_SERVER_BATCH_BATCHER_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "common/metrics/metrics.h"
#include "common/sync/mutex.h"
#include "common/time/clock.h"
#include "reward_server/ranker/ranker.h"
#include "reward_server/ranker/score_groups.h"

namespace sluice::reward {

struct BatcherOptions {
  // Candidates (targets included) in one batch; a larger group is a batch of its own.
  int64_t max_batch_candidates = 4096;
  // How long a group may wait for company.
  absl::Duration max_delay = absl::Milliseconds(3);
  // Groups waiting, over all requests.
  int64_t max_queued_groups = 4096;

  // InvalidArgument naming the field.
  absl::Status Validate() const;
};

// A request. `done` is called exactly once, by the thread that computed or dropped its last group, if Submit
// returned OK, and never otherwise.
struct ScoreTask {
  const Ranker* ranker = nullptr;    // must outlive the batcher
  std::vector<GroupToScore> groups;  // at least one
  absl::Time deadline = absl::InfiniteFuture();
  // Whether the client gave up. Thread-safe; asked just before computing. May be empty.
  std::function<bool()> cancelled;
  // The results in the order of the groups. DeadlineExceeded or Cancelled if the request left the queue unscored.
  std::function<void(absl::StatusOr<std::vector<GroupResult>>)> done;
};

class Batcher {
 public:
  // `metrics` must outlive the batcher.
  Batcher(const BatcherOptions& options, NowFunction now, Metrics* metrics);
  // Close must have been called and every Run must have returned; what is still queued ends as Unavailable.
  ~Batcher();

  // ResourceExhausted: the queue has no room now (see RetryHint). Unavailable: closed. InvalidArgument: no groups, or
  // more than would ever fit.
  absl::Status Submit(ScoreTask task);

  // About how long until there is room again.
  absl::Duration RetryHint() const;

  // Computes one batch if one is due at now(). Returns when the next one is due: the past or now if one is ready,
  // InfiniteFuture if nothing waits.
  absl::Time RunOnce();

  // Computes batches until Close, then drains the queue without delay and returns.
  void Run();

  // No request is accepted any more; what is queued is still computed. Idempotent.
  void Close();

  int64_t queued_groups() const;

 private:
  struct Request;
  // One group of a request.
  struct Entry {
    std::shared_ptr<Request> request;
    size_t index = 0;
    absl::Time queued;
  };
  struct Series;

  absl::Time DueLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<Entry> TakeBatchLocked(absl::Time now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Compute(const std::vector<Entry>& batch, absl::Time now);

  const BatcherOptions options_;
  const NowFunction now_;
  const std::unique_ptr<Series> series_;

  mutable Mutex mutex_;
  CondVar changed_;
  std::deque<Entry> queue_ ABSL_GUARDED_BY(mutex_);
  int64_t queued_candidates_ ABSL_GUARDED_BY(mutex_) = 0;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  // Seconds of computing a group, a moving average over batches; for the retry hint.
  double seconds_per_group_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace sluice::reward

#endif  // SLUICE_REWARD_SERVER_BATCH_BATCHER_H_
