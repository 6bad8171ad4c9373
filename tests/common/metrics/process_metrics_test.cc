#include "common/metrics/process_metrics.h"

#include <ctime>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

// After the name: state, 10 fields, utime 7, stime 5, 6 fields, starttime 900, vsize, rss 33, and more.
constexpr char kLine[] = "42 (a (b) c) S 1 1 1 0 -1 0 1 2 3 4 7 5 0 0 20 0 9 0 900 1000 33 18446744073709551615 1\n";

// The sample of a series without labels on the page.
double Sample(const std::string& page, const std::string& name) {
  const size_t at = page.find("\n" + name + " ");
  return at == std::string::npos ? -1 : std::stod(page.substr(at + name.size() + 2));
}

TEST(ProcessMetricsTest, AProcessWithBlanksAndParenthesesInItsNameIsRead) {
  const std::optional<ProcessStat> stat = ParseProcessStat(kLine);
  ASSERT_TRUE(stat.has_value());
  EXPECT_EQ(stat->cpu_ticks, 12u);
  EXPECT_EQ(stat->start_ticks, 900u);
  EXPECT_EQ(stat->resident_pages, 33u);
}

TEST(ProcessMetricsTest, WhatIsNoSuchLineGivesNothing) {
  EXPECT_FALSE(ParseProcessStat("").has_value());
  EXPECT_FALSE(ParseProcessStat("42 (a) S 1 2 3").has_value());
  EXPECT_FALSE(ParseProcessStat("42 (a) S 1 1 1 0 -1 0 1 2 3 4 seven 5 0 0 20 0 9 0 900 1000 33 1").has_value());
}

TEST(ProcessMetricsTest, TheBootTimeIsFoundAmongTheOtherLines) {
  EXPECT_EQ(ParseBootTime("cpu 1 2 3\nbtime 1700000000\nprocesses 5\n"), 1700000000u);
  EXPECT_FALSE(ParseBootTime("cpu 1 2 3\n").has_value());
}

TEST(ProcessMetricsTest, ThisProcessShowsWhatItUses) {
  Metrics metrics;
  AddProcessMetrics(&metrics);
  const std::string page = metrics.Text();
  EXPECT_THAT(page, HasSubstr("sluice_build_info{version=\""));
  EXPECT_GT(Sample(page, "process_resident_memory_bytes"), 1e6);
  EXPECT_GE(Sample(page, "process_open_fds"), 3);
  EXPECT_GE(Sample(page, "process_max_fds"), Sample(page, "process_open_fds"));
  EXPECT_LE(Sample(page, "process_start_time_seconds"), static_cast<double>(std::time(nullptr)) + 1);
  EXPECT_GT(Sample(page, "process_start_time_seconds"), static_cast<double>(std::time(nullptr)) - 3600);
}

TEST(ProcessMetricsTest, CpuTimeOnlyGrows) {
  Metrics metrics;
  AddProcessMetrics(&metrics);
  const double before = Sample(metrics.Text(), "process_cpu_seconds_total");
  const std::clock_t until = std::clock() + CLOCKS_PER_SEC / 10;
  while (std::clock() < until) {
  }
  const double after = Sample(metrics.Text(), "process_cpu_seconds_total");
  EXPECT_GE(after, before + 0.05);
  EXPECT_LE(after, static_cast<double>(std::clock()) / CLOCKS_PER_SEC + 0.05);
}

}  // namespace
}  // namespace sluice
