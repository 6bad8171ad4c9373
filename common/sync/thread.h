// The one place where threads start. The handle joins on destruction, so a thread never outlives its owner;
// whoever owns the loop must wake and stop it first.
#ifndef SLUICE_COMMON_SYNC_THREAD_H_
#define SLUICE_COMMON_SYNC_THREAD_H_

#include <functional>
#include <thread>

#include "absl/strings/string_view.h"

namespace sluice {

class Thread {
 public:
  Thread() = default;
  Thread(Thread&&) = default;
  Thread& operator=(Thread&& other) noexcept;
  ~Thread() { Join(); }

  // Waits for the end. Safe to call twice.
  void Join();

 private:
  friend Thread StartThread(absl::string_view name, std::function<void()> function);
  std::thread thread_;
};

// Runs `function` on a thread named `name` (the first 15 bytes show in ps and gdb). An exception that
// leaves it is our bug and aborts the process with the thread's name.
Thread StartThread(absl::string_view name, std::function<void()> function);

}  // namespace sluice

#endif  // SLUICE_COMMON_SYNC_THREAD_H_
