#include "reward_server/batch/batcher.h"

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status/status.h"

namespace sluice::reward {
namespace {

constexpr absl::Duration kMaxRetryHint = absl::Seconds(2);
// Weight of the latest batch in the moving average of the time a group takes.
constexpr double kLatestWeight = 0.1;

}  // namespace

struct Batcher::Request {
  ScoreTask task;
  std::vector<GroupResult> results;  // each written by one thread, read by the last one
  std::atomic<int64_t> open{0};      // groups not yet done
  std::atomic<bool> expired{false};
  std::atomic<bool> cancelled{false};
};

struct Batcher::Series {
  explicit Series(Metrics* metrics) {
    const std::array<const char*, 6> names = {"ok", "invalid_input", "not_finite", "failed", "expired", "cancelled"};
    for (size_t i = 0; i < names.size(); ++i) {
      groups[i] =
          metrics->AddCounter("sluice_reward_groups_total", "Groups answered, by outcome.", {{"outcome", names[i]}});
    }
    queued_groups = metrics->AddGauge("sluice_reward_queued_groups", "Groups waiting to be scored.");
    queue_delay = metrics->AddHistogram("sluice_reward_queue_delay_seconds", "Wait of a group before it is computed.",
                                        {.0005, .001, .002, .003, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5});
    batch_candidates = metrics->AddHistogram("sluice_reward_batch_candidates", "Candidates and targets in a batch.",
                                             {16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192});
    batch_groups = metrics->AddHistogram("sluice_reward_batch_groups", "Groups in a batch.",
                                         {1, 2, 4, 8, 16, 32, 64, 128, 256, 512});
    batch_duration = metrics->AddHistogram("sluice_reward_batch_duration_seconds", "Time to compute a batch.",
                                           {.0005, .001, .002, .003, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5});
  }

  enum { kExpired = 4, kCancelled = 5 };
  std::array<Counter*, 6> groups;  // by GroupStatus, then kExpired and kCancelled
  Gauge* queued_groups;
  Histogram* queue_delay;
  Histogram* batch_candidates;
  Histogram* batch_groups;
  Histogram* batch_duration;
};

absl::Status BatcherOptions::Validate() const {
  if (max_batch_candidates < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("want max_batch_candidates of at least 1, got ", max_batch_candidates));
  }
  if (max_delay < absl::ZeroDuration() || max_delay > absl::Seconds(10)) {
    return absl::InvalidArgumentError(
        absl::StrCat("want max_delay from 0 to 10 s, got ", absl::FormatDuration(max_delay)));
  }
  if (max_queued_groups < 1) {
    return absl::InvalidArgumentError(absl::StrCat("want max_queued_groups of at least 1, got ", max_queued_groups));
  }
  return absl::OkStatus();
}

Batcher::Batcher(const BatcherOptions& options, NowFunction now, Metrics* metrics)
    : options_(options), now_(std::move(now)), series_(std::make_unique<Series>(metrics)) {
  const absl::Status status = options.Validate();
  SLUICE_CHECK(status.ok(), status.ToString());
}

Batcher::~Batcher() {
  std::deque<Entry> left;
  {
    MutexLock lock(&mutex_);
    closed_ = true;
    left.swap(queue_);
  }
  for (Entry& entry : left) {
    if (entry.request->open.fetch_sub(1) == 1) {
      entry.request->task.done(absl::UnavailableError("the reward server is stopping"));
    }
  }
}

absl::Status Batcher::Submit(ScoreTask task) {
  const int64_t count = static_cast<int64_t>(task.groups.size());
  if (count == 0) return absl::InvalidArgumentError("a request wants at least one group");
  if (count > options_.max_queued_groups) {
    return absl::InvalidArgumentError(absl::StrCat("a request of ", count, " groups never fits the queue of ",
                                                   options_.max_queued_groups, "; send fewer groups at once"));
  }
  auto request = std::make_shared<Request>();
  request->task = std::move(task);
  request->results.resize(static_cast<size_t>(count));
  request->open = count;
  const absl::Time now = now_();

  MutexLock lock(&mutex_);
  if (closed_) return absl::UnavailableError("the reward server is stopping");
  if (static_cast<int64_t>(queue_.size()) + count > options_.max_queued_groups) {
    return absl::ResourceExhaustedError(absl::StrCat("the queue of ", options_.max_queued_groups,
                                                     " groups has no room for ", count, " more; try again later"));
  }
  for (int64_t i = 0; i < count; ++i) {
    queue_.push_back({.request = request, .index = static_cast<size_t>(i), .queued = now});
    queued_candidates_ += request->task.groups[static_cast<size_t>(i)].num_candidates();
  }
  series_->queued_groups->Set(static_cast<double>(queue_.size()));
  changed_.NotifyOne();
  return absl::OkStatus();
}

absl::Duration Batcher::RetryHint() const {
  MutexLock lock(&mutex_);
  // Half of the queue computed: enough that those who come back find room, however many they are.
  const absl::Duration drain = absl::Seconds(seconds_per_group_ * static_cast<double>(queue_.size()) / 2);
  return std::clamp(drain, std::max(options_.max_delay, absl::Milliseconds(1)), kMaxRetryHint);
}

absl::Time Batcher::DueLocked() const {
  if (queue_.empty()) return absl::InfiniteFuture();
  if (closed_ || queued_candidates_ >= options_.max_batch_candidates) return absl::InfinitePast();
  return queue_.front().queued + options_.max_delay;
}

std::vector<Batcher::Entry> Batcher::TakeBatchLocked(absl::Time now) {
  std::vector<Entry> batch;
  if (DueLocked() > now) return batch;
  int64_t candidates = 0;
  while (!queue_.empty()) {
    const Entry& front = queue_.front();
    const int64_t size = front.request->task.groups[front.index].num_candidates();
    if (!batch.empty() && candidates + size > options_.max_batch_candidates) break;
    candidates += size;
    batch.push_back(std::move(queue_.front()));
    queue_.pop_front();
  }
  queued_candidates_ -= candidates;
  series_->queued_groups->Set(static_cast<double>(queue_.size()));
  return batch;
}

void Batcher::Compute(const std::vector<Entry>& batch, absl::Time now) {
  // What nobody waits for any more is not computed.
  std::map<const Ranker*, std::vector<const Entry*>> by_ranker;
  int64_t candidates = 0, groups = 0;
  for (const Entry& entry : batch) {
    Request& request = *entry.request;
    if (now >= request.task.deadline) request.expired = true;
    if (request.task.cancelled && request.task.cancelled()) request.cancelled = true;
    if (request.expired || request.cancelled) {
      series_->groups[request.cancelled ? Series::kCancelled : Series::kExpired]->Increment();
      continue;
    }
    series_->queue_delay->Observe(absl::ToDoubleSeconds(now - entry.queued));
    by_ranker[request.task.ranker].push_back(&entry);
    candidates += request.task.groups[entry.index].num_candidates();
    ++groups;
  }
  for (const auto& [ranker, entries] : by_ranker) {
    std::vector<const GroupToScore*> asked;
    for (const Entry* entry : entries) asked.push_back(&entry->request->task.groups[entry->index]);
    std::vector<GroupResult> results = ScoreGroups(*ranker, asked);
    for (size_t i = 0; i < entries.size(); ++i) {
      series_->groups[static_cast<size_t>(results[i].status)]->Increment();
      entries[i]->request->results[entries[i]->index] = std::move(results[i]);
    }
  }
  if (groups > 0) {
    const double seconds = absl::ToDoubleSeconds(now_() - now);
    series_->batch_candidates->Observe(static_cast<double>(candidates));
    series_->batch_groups->Observe(static_cast<double>(groups));
    series_->batch_duration->Observe(seconds);
    MutexLock lock(&mutex_);
    const double latest = seconds / static_cast<double>(groups);
    seconds_per_group_ =
        seconds_per_group_ == 0 ? latest : (1 - kLatestWeight) * seconds_per_group_ + kLatestWeight * latest;
  }
  for (const Entry& entry : batch) {
    Request& request = *entry.request;
    if (request.open.fetch_sub(1) > 1) continue;
    if (request.cancelled) {
      request.task.done(absl::CancelledError("the request was cancelled before it was scored"));
    } else if (request.expired) {
      request.task.done(absl::DeadlineExceededError("the request waited past its deadline and was not scored"));
    } else {
      request.task.done(std::move(request.results));
    }
  }
}

absl::Time Batcher::RunOnce() {
  const absl::Time now = now_();
  std::vector<Entry> batch;
  {
    MutexLock lock(&mutex_);
    batch = TakeBatchLocked(now);
  }
  if (!batch.empty()) Compute(batch, now);
  MutexLock lock(&mutex_);
  return DueLocked();
}

void Batcher::Run() {
  while (true) {
    RunOnce();
    MutexLock lock(&mutex_);
    if (queue_.empty()) {
      if (closed_) return;
      changed_.Wait(&mutex_);
    } else if (const absl::Duration wait = DueLocked() - now_(); wait > absl::ZeroDuration()) {
      changed_.WaitFor(&mutex_, wait);  // or until a Submit fills the batch
    }
  }
}

void Batcher::Close() {
  MutexLock lock(&mutex_);
  closed_ = true;
  changed_.NotifyAll();
}

int64_t Batcher::queued_groups() const {
  MutexLock lock(&mutex_);
  return static_cast<int64_t>(queue_.size());
}

}  // namespace sluice::reward
