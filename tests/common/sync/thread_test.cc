#include "common/sync/thread.h"

#include <pthread.h>

#include <stdexcept>
#include <string>
#include <utility>

#include "gtest/gtest.h"

namespace sluice {
namespace {

TEST(ThreadTest, TheHandleJoinsWhenItGoesOutOfScope) {
  int value = 0;
  {
    const Thread thread = StartThread("adder", [&] { value = 5; });
  }
  EXPECT_EQ(value, 5);
}

TEST(ThreadTest, JoiningTwiceAndJoiningNothingAreHarmless) {
  Thread thread = StartThread("idle", [] {});
  thread.Join();
  thread.Join();
  Thread none;
  none.Join();
}

TEST(ThreadTest, AssigningOverARunningThreadJoinsItFirst) {
  int first = 0;
  int second = 0;
  Thread thread = StartThread("first", [&] { first = 1; });
  thread = StartThread("second", [&] { second = 2; });
  EXPECT_EQ(first, 1);
  thread.Join();
  EXPECT_EQ(second, 2);
}

TEST(ThreadTest, ShowsTheFirstFifteenBytesOfItsName) {
  char name[32] = {};
  {
    const Thread thread =
        StartThread("publication-of-weights", [&] { pthread_getname_np(pthread_self(), name, sizeof(name)); });
  }
  EXPECT_EQ(std::string(name), "publication-of-");
}

TEST(ThreadDeathTest, AnEscapedExceptionEndsTheProcessWithTheNameOfTheThread) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(StartThread("leaky", [] { throw std::runtime_error("lost"); }).Join(), "thread leaky .* lost");
}

}  // namespace
}  // namespace sluice
