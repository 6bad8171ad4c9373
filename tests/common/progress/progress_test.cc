#include "common/progress/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <string>

namespace sluice {
namespace {

TEST(HumanDurationTest, NamesTheTwoLargestUnits) {
  EXPECT_EQ(HumanDuration(absl::Seconds(42)), "42 s");
  EXPECT_EQ(HumanDuration(absl::Seconds(185)), "3 min 05 s");
  EXPECT_EQ(HumanDuration(absl::Seconds(3725)), "1 h 02 min");
}

TEST(ProgressLineTest, ShowsShareRateAndTimeLeft) {
  // 30 steps in 10 s are 3 a second; 60 are left, so 20 s.
  const ProgressState state = {.label = "training",
                               .unit = "steps",
                               .extra = "loss 2.5",
                               .done = 40,
                               .total = 100,
                               .first_done = 10,
                               .elapsed = absl::Seconds(10)};
  EXPECT_EQ(ProgressLine(state, 10), "training [====      ]  40 % 40/100 steps, 3.00 steps/s, 20 s left, loss 2.5");
}

TEST(ProgressLineTest, SaysNothingAboutTimeWhenTheTotalIsUnknown) {
  const ProgressState state = {.label = "reading", .unit = "lines", .done = 50, .elapsed = absl::Seconds(5)};
  EXPECT_EQ(ProgressLine(state, 10), "reading 50 lines, 10 lines/s");
}

class ProgressPrinterTest : public testing::Test {
 protected:
  std::string Written() {
    std::fflush(file_);
    std::string text(static_cast<size_t>(std::ftell(file_)), '\0');
    std::rewind(file_);
    EXPECT_EQ(std::fread(text.data(), 1, text.size(), file_), text.size());
    return text;
  }

  std::FILE* file_ = std::tmpfile();
  absl::Time now_ = absl::FromUnixSeconds(1000);
};

TEST_F(ProgressPrinterTest, WritesPlainLinesAtMostOnceAnInterval) {
  ProgressPrinter printer(file_, [this] { return now_; }, {.plain_interval = absl::Seconds(10)});
  for (int step = 0; step <= 21; ++step) {
    printer.Update("training", "steps", step, 100);
    now_ += absl::Seconds(1);
  }
  // Shown at 0, 10 and 20 seconds.
  EXPECT_EQ(Written(),
            "training   0 % 0/100 steps\n"
            "training  10 % 10/100 steps, 1.00 steps/s, 1 min 30 s left\n"
            "training  20 % 20/100 steps, 1.00 steps/s, 1 min 20 s left\n");
}

TEST_F(ProgressPrinterTest, RedrawsInPlaceOnATerminalAndKeepsTextApart) {
  {
    ProgressPrinter printer(file_, [this] { return now_; }, {.terminal = true});
    printer.Update("a", "steps", 1, 2);
    printer.Print("a remark");
  }
  EXPECT_EQ(Written(), "\r\033[Ka [============            ]  50 % 1/2 steps\na remark\n");
}

}  // namespace
}  // namespace sluice
