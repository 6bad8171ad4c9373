#include "common/signal/stop_signals.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <csignal>

#include "common/sync/thread.h"

namespace sluice {
namespace {

// To the process, as from outside, while its constructors run: the program would die here if it were not blocked.
__attribute__((constructor)) void AskToStopBeforeMain() { kill(getpid(), SIGTERM); }

// A handler may do little more than this.
std::atomic<int> last_handled{0};

// One test: a process has one set of handlers, and the order matters.
TEST(StopSignalsTest, NoneIsLostHoweverEarlyAndThenTheHandlerGetsThem) {
  EXPECT_EQ(TakeStopSignal(), SIGTERM) << "the one from before main";
  EXPECT_EQ(TakeStopSignal(), 0);

  kill(getpid(), SIGINT);
  EXPECT_EQ(TakeStopSignal(absl::Seconds(60)), SIGINT);

  bool blocked = false;
  Thread thread = StartThread("threads-too", [&blocked] {
    sigset_t mask;
    pthread_sigmask(SIG_BLOCK, nullptr, &mask);
    blocked = sigismember(&mask, SIGTERM) == 1 && sigismember(&mask, SIGINT) == 1;
  });
  thread.Join();
  EXPECT_TRUE(blocked);

  kill(getpid(), SIGTERM);
  HandleStopSignals([](int signal) { last_handled = signal; });
  EXPECT_EQ(last_handled, SIGTERM) << "it waited, and was handled at once";
  raise(SIGINT);
  EXPECT_EQ(last_handled, SIGINT);
}

}  // namespace
}  // namespace sluice
