// A network link whose transfers share its bandwidth evenly, as parallel TCP streams of one sender roughly do.
#ifndef SLUICE_TESTS_BENCH_SCALE_FAIR_LINK_H_
#define SLUICE_TESTS_BENCH_SCALE_FAIR_LINK_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <utility>

#include "tests/bench/scale/event_queue.h"

namespace sluice::scale {

// Processor sharing: with n transfers under way each gets min(bandwidth / n, receiver's bandwidth). All transfers get
// the same rate at any moment, so that one counter of bytes "given to each so far" orders their ends.
class FairLink {
 public:
  FairLink(EventQueue* events, double bandwidth, double receiver_bandwidth)
      : events_(events), bandwidth_(bandwidth), receiver_bandwidth_(receiver_bandwidth) {}

  void Start(double bytes, std::function<void()> done) {
    Advance();
    transfers_.emplace(given_ + bytes, std::move(done));
    Reschedule();
  }
  double busy_seconds() const { return busy_; }

 private:
  double Rate() const {
    return std::min(bandwidth_ / static_cast<double>(std::max<size_t>(transfers_.size(), 1)), receiver_bandwidth_);
  }
  void Advance() {
    const double elapsed = events_->now() - last_;
    last_ = events_->now();
    if (transfers_.empty()) return;
    given_ += elapsed * Rate();
    busy_ += elapsed;
  }
  void Reschedule() {
    const uint64_t turn = ++turn_;
    if (transfers_.empty()) return;
    const double left = transfers_.begin()->first - given_;
    events_->After(std::max(0.0, left / Rate()), [this, turn] {
      if (turn == turn_) End();
    });
  }
  // The transfer that is due ends, and with it all that end within a byte of it: equal transfers that began together
  // end together, whatever the last bit of a sum says.
  void End() {
    Advance();
    const double due = std::max(given_, transfers_.begin()->first) + 1;
    while (!transfers_.empty() && transfers_.begin()->first <= due) {
      events_->After(0, std::move(transfers_.begin()->second));
      transfers_.erase(transfers_.begin());
    }
    Reschedule();
  }

  EventQueue* const events_;
  const double bandwidth_;           // bytes/s
  const double receiver_bandwidth_;  // bytes/s
  double last_ = 0;
  double given_ = 0;
  double busy_ = 0;
  uint64_t turn_ = 0;
  std::multimap<double, std::function<void()>> transfers_;  // by the value of given_ at which they end
};

}  // namespace sluice::scale

#endif  // SLUICE_TESTS_BENCH_SCALE_FAIR_LINK_H_
