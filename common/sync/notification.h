// One-shot event: Notify() once, any number of waiters. Thread-safe.
#ifndef SLUICE_COMMON_SYNC_NOTIFICATION_H_
#define SLUICE_COMMON_SYNC_NOTIFICATION_H_

#include "absl/time/time.h"
#include "common/sync/mutex.h"
#include "common/time/clock.h"

namespace sluice {

class Notification {
 public:
  void Notify() {
    MutexLock lock(&mutex_);
    notified_ = true;
    changed_.NotifyAll();
  }

  bool HasBeenNotified() const {
    MutexLock lock(&mutex_);
    return notified_;
  }

  void Wait() const {
    MutexLock lock(&mutex_);
    while (!notified_) changed_.Wait(&mutex_);
  }

  // Returns whether the event happened within `timeout` (real time).
  bool WaitFor(absl::Duration timeout) const {
    const absl::Time deadline = MonotonicNow() + timeout;
    MutexLock lock(&mutex_);
    while (!notified_) {
      const absl::Duration left = deadline - MonotonicNow();
      if (left <= absl::ZeroDuration()) return false;
      changed_.WaitFor(&mutex_, left);
    }
    return true;
  }

 private:
  mutable Mutex mutex_;
  mutable CondVar changed_;
  bool notified_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace sluice

#endif  // SLUICE_COMMON_SYNC_NOTIFICATION_H_
