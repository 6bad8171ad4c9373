// Settings of object stores in tests: time passes only by waiting, nothing sleeps.
#ifndef SLUICE_TESTS_TESTING_OBJECT_STORE_OPTIONS_H_
#define SLUICE_TESTS_TESTING_OBJECT_STORE_OPTIONS_H_

#include <vector>

#include "common/object_store/object_store.h"

namespace sluice {

// A clock that the waits between attempts move. Must outlive the options that it makes. For one thread.
struct FakeWaits {
  absl::Time now = absl::UnixEpoch();
  std::vector<absl::Duration> waits;

  // Limits of real time are generous: they are for a hang, not for a loaded machine.
  TransferOptions Options() {
    TransferOptions options;
    options.request_timeout = absl::Seconds(90);
    options.stall_timeout = absl::Seconds(60);
    options.connect_timeout = absl::Seconds(60);
    options.retry_timeout = absl::Seconds(30);
    options.first_backoff = absl::Seconds(1);
    options.now = [this] { return now; };
    options.wait = [this](absl::Duration delay) {
      waits.push_back(delay);
      now += delay;
      return true;
    };
    return options;
  }
};

}  // namespace sluice

#endif  // SLUICE_TESTS_TESTING_OBJECT_STORE_OPTIONS_H_
