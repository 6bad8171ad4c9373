// Client processes for a benchmark of a server: gRPC does not survive a fork once it runs, so a helper process is
// forked before main, stays empty, and forks each client on demand. What a client spends is then not the server's CPU
// time.
#ifndef SLUICE_TESTS_TESTING_FORKED_CLIENTS_H_
#define SLUICE_TESTS_TESTING_FORKED_CLIENTS_H_

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <string>

#include "common/status/status.h"

namespace sluice {

// One per program, as a variable of namespace scope; one client at a time.
class ForkedClients {
 public:
  // `client` runs in a process of its own with the text given to Start, and returns when that process has done its
  // work, or never.
  explicit ForkedClients(std::function<void(const std::string&)> client) {
    int orders[2], answers[2];
    SLUICE_CHECK(pipe(orders) == 0 && pipe(answers) == 0, "pipes can be made");
    const pid_t parent = getpid();
    helper_ = fork();
    SLUICE_CHECK(helper_ >= 0, "a process can be forked");
    if (helper_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (getppid() != parent) _exit(1);
      close(orders[1]);
      close(answers[0]);
      Serve(orders[0], answers[1], client);
    }
    close(orders[0]);
    close(answers[1]);
    orders_ = orders[1];
    answers_ = answers[0];
  }
  ~ForkedClients() {
    close(orders_);  // the helper ends with its orders
    waitpid(helper_, nullptr, 0);
    close(answers_);
  }

  void Start(const std::string& order) {
    SLUICE_CHECK(order.size() < kOrderBytes, "an order is short");
    char bytes[kOrderBytes] = {};
    std::memcpy(bytes, order.data(), order.size());
    SLUICE_CHECK(write(orders_, bytes, sizeof(bytes)) == static_cast<ssize_t>(sizeof(bytes)), "the helper lives");
  }
  // Kills the client.
  void Stop() {
    const char bytes[kOrderBytes] = {};
    SLUICE_CHECK(write(orders_, bytes, sizeof(bytes)) == static_cast<ssize_t>(sizeof(bytes)), "the helper lives");
    char done = 0;
    SLUICE_CHECK(read(answers_, &done, 1) == 1, "the helper answers");
  }

 private:
  static constexpr size_t kOrderBytes = 256;

  [[noreturn]] static void Serve(int orders, int answers, const std::function<void(const std::string&)>& client) {
    pid_t running = -1;
    char bytes[kOrderBytes];
    const pid_t helper = getpid();
    while (read(orders, bytes, sizeof(bytes)) == static_cast<ssize_t>(sizeof(bytes))) {
      if (running > 0) {
        kill(running, SIGKILL);
        waitpid(running, nullptr, 0);
        running = -1;
        const char done = 1;
        if (write(answers, &done, 1) != 1) break;
      }
      if (bytes[0] == 0) continue;
      running = fork();
      if (running == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != helper) _exit(1);
        client(bytes);
        _exit(0);
      }
    }
    if (running > 0) kill(running, SIGKILL);
    _exit(0);
  }

  pid_t helper_ = -1;
  int orders_ = -1;
  int answers_ = -1;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_TESTING_FORKED_CLIENTS_H_
