#include "common/metrics/blocked.h"

#include <optional>
#include <string>

#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

class BlockedTest : public ::testing::Test {
 protected:
  std::string Text() { return metrics_.Text(); }
  void Pass(absl::Duration time) { now_ += time; }

  absl::Time now_ = absl::FromUnixSeconds(1000);
  Metrics metrics_;
  Blocked blocked_{&metrics_, [this] { return now_; }, "learner", "groups"};
};

constexpr char kSeries[] = "sluice_blocked_seconds_total{on=\"groups\",who=\"learner\"} ";

TEST_F(BlockedTest, CountsWaitsAlsoWhileTheyLast) {
  EXPECT_THAT(Text(), HasSubstr(std::string(kSeries) + "0\n"));
  Pass(absl::Seconds(5));
  {
    const Blocked::Wait wait(&blocked_);
    Pass(absl::Seconds(2));
    EXPECT_THAT(Text(), HasSubstr(std::string(kSeries) + "2\n"));
    Pass(absl::Seconds(1));
  }
  Pass(absl::Seconds(7));
  EXPECT_THAT(Text(), HasSubstr(std::string(kSeries) + "3\n"));
}

TEST_F(BlockedTest, TwoThatWaitCountTwice) {
  std::optional<Blocked::Wait> one, other;
  one.emplace(&blocked_);
  Pass(absl::Seconds(1));
  other.emplace(&blocked_);
  Pass(absl::Seconds(1));
  one.reset();
  Pass(absl::Seconds(1));
  other.reset();
  Pass(absl::Seconds(1));
  EXPECT_THAT(Text(), HasSubstr(std::string(kSeries) + "4\n"));
}

TEST(BlockedWaitTest, WithoutAMeterNothingIsCounted) { const Blocked::Wait wait(nullptr); }

}  // namespace
}  // namespace sluice
