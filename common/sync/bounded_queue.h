// A bounded, closable multi-producer multi-consumer queue. Full blocks or refuses, never drops.
//
// Close() lets consumers drain what is left and makes every producer fail: after it Push and TryPush return
// false, and Pop returns nullopt once the queue is empty. Thread-safe.
#ifndef SLUICE_COMMON_SYNC_BOUNDED_QUEUE_H_
#define SLUICE_COMMON_SYNC_BOUNDED_QUEUE_H_

#include <cstddef>
#include <deque>
#include <optional>
#include <utility>

#include "absl/time/time.h"
#include "common/sync/mutex.h"
#include "common/time/clock.h"

namespace sluice {

template <typename T>
class BoundedQueue {
 public:
  explicit BoundedQueue(size_t capacity) : capacity_(capacity) {}

  // Waits for room. False if the queue is closed; `value` is then lost.
  bool Push(T value) {
    MutexLock lock(&mutex_);
    while (!closed_ && items_.size() >= capacity_) changed_.Wait(&mutex_);
    return PushLocked(std::move(value));
  }

  // False if the queue is full or closed.
  bool TryPush(T value) {
    MutexLock lock(&mutex_);
    if (items_.size() >= capacity_) return false;
    return PushLocked(std::move(value));
  }

  // Waits for an item. nullopt when closed and drained.
  std::optional<T> Pop() {
    MutexLock lock(&mutex_);
    while (!closed_ && items_.empty()) changed_.Wait(&mutex_);
    return PopLocked();
  }

  // As Pop, but gives up after `timeout` (real time); nullopt then too.
  std::optional<T> PopFor(absl::Duration timeout) {
    const absl::Time deadline = MonotonicNow() + timeout;
    MutexLock lock(&mutex_);
    while (!closed_ && items_.empty()) {
      const absl::Duration left = deadline - MonotonicNow();
      if (left <= absl::ZeroDuration()) return std::nullopt;
      changed_.WaitFor(&mutex_, left);
    }
    return PopLocked();
  }

  void Close() {
    MutexLock lock(&mutex_);
    closed_ = true;
    changed_.NotifyAll();
  }

  size_t size() const {
    MutexLock lock(&mutex_);
    return items_.size();
  }
  bool closed() const {
    MutexLock lock(&mutex_);
    return closed_;
  }
  size_t capacity() const { return capacity_; }

 private:
  bool PushLocked(T value) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (closed_) return false;
    items_.push_back(std::move(value));
    changed_.NotifyAll();
    return true;
  }

  std::optional<T> PopLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (items_.empty()) return std::nullopt;
    std::optional<T> front(std::move(items_.front()));
    items_.pop_front();
    changed_.NotifyAll();
    return front;
  }

  const size_t capacity_;
  mutable Mutex mutex_;
  CondVar changed_;
  std::deque<T> items_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace sluice

#endif  // SLUICE_COMMON_SYNC_BOUNDED_QUEUE_H_
