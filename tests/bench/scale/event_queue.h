// A virtual clock and what happens on it: events in order of time, those of one moment in the order they were made.
#ifndef SLUICE_TESTS_BENCH_SCALE_EVENT_QUEUE_H_
#define SLUICE_TESTS_BENCH_SCALE_EVENT_QUEUE_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "absl/time/time.h"

namespace sluice::scale {

// Not thread-safe: a simulation is one thread, and so repeats exactly.
class EventQueue {
 public:
  double now() const { return now_; }  // seconds since the start
  absl::Time time() const { return absl::UnixEpoch() + absl::Seconds(now_); }

  void At(double when, std::function<void()> event) {
    events_.push_back({std::max(when, now_), sequence_++, std::move(event)});
    std::push_heap(events_.begin(), events_.end(), Later);
  }
  void After(double delay, std::function<void()> event) { At(now_ + delay, std::move(event)); }

  // Runs the next event; false if there is none.
  bool Step() {
    if (events_.empty()) return false;
    std::pop_heap(events_.begin(), events_.end(), Later);
    Event event = std::move(events_.back());
    events_.pop_back();
    now_ = event.when;
    event.run();
    return true;
  }

 private:
  struct Event {
    double when = 0;
    uint64_t sequence = 0;
    std::function<void()> run;
  };
  static bool Later(const Event& a, const Event& b) {
    return a.when != b.when ? a.when > b.when : a.sequence > b.sequence;
  }

  double now_ = 0;
  uint64_t sequence_ = 0;
  std::vector<Event> events_;  // a heap
};

}  // namespace sluice::scale

#endif  // SLUICE_TESTS_BENCH_SCALE_EVENT_QUEUE_H_
