#include "common/metrics/blocked.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/time/time.h"
#include "common/sync/mutex.h"

namespace sluice {

struct Blocked::State {
  void Change(int waiters) {
    MutexLock lock(&mutex);
    const absl::Time present = now();
    const absl::Duration passed = std::max(present - accounted, absl::ZeroDuration());
    if (waiting > 0) seconds->Increment(waiting * absl::ToDoubleSeconds(passed));
    accounted = present;
    waiting += waiters;
  }

  NowFunction now;
  Counter* seconds = nullptr;
  Mutex mutex;
  int waiting ABSL_GUARDED_BY(mutex) = 0;
  absl::Time accounted ABSL_GUARDED_BY(mutex);  // `seconds` holds all that was waited before
};

Blocked::Blocked(Metrics* metrics, NowFunction now, absl::string_view who, absl::string_view on)
    : state_(std::make_shared<State>()) {
  state_->now = std::move(now);
  state_->seconds = metrics->AddCounter("sluice_blocked_seconds_total", "Time that one part has waited for another.",
                                        {{"who", std::string(who)}, {"on", std::string(on)}});
  metrics->OnScrape([state = state_] { state->Change(0); });
}

Blocked::Wait::Wait(Blocked* blocked) : blocked_(blocked) {
  if (blocked_ != nullptr) blocked_->state_->Change(1);
}

Blocked::Wait::~Wait() {
  if (blocked_ != nullptr) blocked_->state_->Change(-1);
}

}  // namespace sluice
