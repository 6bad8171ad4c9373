#include "common/sync/thread.h"

#include <pthread.h>

#include <exception>
#include <string>
#include <utility>

#include "common/status/status.h"

namespace sluice {

Thread& Thread::operator=(Thread&& other) noexcept {
  Join();
  thread_ = std::move(other.thread_);
  return *this;
}

void Thread::Join() {
  if (thread_.joinable()) thread_.join();
}

Thread StartThread(absl::string_view name, std::function<void()> function) {
  Thread handle;
  handle.thread_ = std::thread([name = std::string(name.substr(0, 15)), function = std::move(function)] {
    pthread_setname_np(pthread_self(), name.c_str());
    try {
      function();
    } catch (const std::exception& error) {
      SLUICE_CHECK(false, "thread " + name + " let an exception out: " + error.what());
    }
  });
  return handle;
}

}  // namespace sluice
