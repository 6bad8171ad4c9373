// The sending half of one stream of the callback API: a bounded queue, one write in flight, one finish.
//
// A second StartWrite before OnWriteDone kills the process, a StartWrite after Finish too, and several threads want
// to send; so everybody sends through here. The reactor forwards OnWriteDone, and its OnDone must come after
// `finish` ran. Thread-safe. `start_write` and `finish` run outside the lock; they are never called at the same
// time, and never again after `finish`.
#ifndef SLUICE_COMMON_RPC_STREAM_SENDER_H_
#define SLUICE_COMMON_RPC_STREAM_SENDER_H_

#include <cstddef>
#include <deque>
#include <functional>
#include <utility>

#include "absl/status/status.h"
#include "common/sync/mutex.h"

namespace sluice {

template <typename Message>
class StreamSender {
 public:
  struct Limits {
    size_t messages = 4096;
    size_t bytes = 64 << 20;
  };

  // start_write: StartWrite(message); the message stays valid until OnWriteDone. finish: Finish(status), called once.
  StreamSender(Limits limits, std::function<void(const Message*)> start_write,
               std::function<void(const absl::Status&)> finish)
      : limits_(limits), start_write_(std::move(start_write)), finish_(std::move(finish)) {}

  // False if the stream ends or its queue is full. A full queue means a peer that does not read: the caller should
  // Abort the stream rather than leave a hole in it.
  bool Send(Message message) {
    const size_t bytes = message.ByteSizeLong();
    const Message* next = nullptr;
    {
      MutexLock lock(&mutex_);
      if (closing_ || queue_.size() >= limits_.messages || queued_bytes_ + bytes > limits_.bytes) return false;
      queued_bytes_ += bytes;
      queue_.push_back(std::move(message));
      next = NextLocked();
    }
    if (next != nullptr) start_write_(next);
    return true;
  }

  // Ends the stream with `status` after what is queued. The first Close or Abort decides the status.
  void Close(absl::Status status) { End(std::move(status), /*drop=*/false); }
  // Ends the stream with `status` as soon as the write in flight is over; drops the queue.
  void Abort(absl::Status status) { End(std::move(status), /*drop=*/true); }

  // From the reactor's OnWriteDone. !ok: the peer is gone.
  void OnWriteDone(bool ok) {
    const Message* next = nullptr;
    bool finish = false;
    {
      MutexLock lock(&mutex_);
      writing_ = false;
      queued_bytes_ -= queue_.front().ByteSizeLong();
      queue_.pop_front();
      if (!ok) {
        if (!closing_) status_ = absl::UnavailableError("the peer closed the stream");
        closing_ = true;
        DropLocked();
      }
      next = NextLocked();
      finish = FinishNowLocked();
    }
    if (next != nullptr) start_write_(next);
    if (finish) finish_(status_);
  }

  size_t queued() const {
    MutexLock lock(&mutex_);
    return queue_.size();
  }

 private:
  void End(absl::Status status, bool drop) {
    bool finish = false;
    {
      MutexLock lock(&mutex_);
      if (!closing_) status_ = std::move(status);
      closing_ = true;
      if (drop) DropLocked();
      finish = FinishNowLocked();
    }
    if (finish) finish_(status_);
  }

  // Drops all but the message in flight, which gRPC still reads.
  void DropLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    while (queue_.size() > (writing_ ? 1u : 0u)) {
      queued_bytes_ -= queue_.back().ByteSizeLong();
      queue_.pop_back();
    }
  }

  const Message* NextLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (writing_ || queue_.empty()) return nullptr;
    writing_ = true;
    return &queue_.front();  // a deque does not move its elements when others come and go at its ends
  }

  bool FinishNowLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!closing_ || finished_ || writing_ || !queue_.empty()) return false;
    finished_ = true;
    return true;
  }

  const Limits limits_;
  const std::function<void(const Message*)> start_write_;
  const std::function<void(const absl::Status&)> finish_;
  mutable Mutex mutex_;
  std::deque<Message> queue_ ABSL_GUARDED_BY(mutex_);  // front: in flight if writing_
  size_t queued_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_;  // written under the lock before closing_ is set, read after finished_ is
};

}  // namespace sluice

#endif  // SLUICE_COMMON_RPC_STREAM_SENDER_H_
