#include "learner/report/chart.h"

#include <limits>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice::learner {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// The numbers of all coordinates in the path of that class.
std::vector<double> PathNumbers(const std::string& html, const std::string& css_class) {
  const std::string opening = absl::StrCat("class=\"", css_class, "\" d=\"");
  const size_t begin = html.find(opening, html.find("aria-label"));
  if (begin == std::string::npos) return {};
  const size_t path = begin + opening.size();
  std::vector<double> numbers;
  for (const absl::string_view word :
       absl::StrSplit(html.substr(path, html.find('"', path) - path), absl::ByAnyChar("MLZ ,"), absl::SkipEmpty())) {
    numbers.push_back(0);
    EXPECT_TRUE(absl::SimpleAtod(word, &numbers.back())) << word;
  }
  return numbers;
}

TEST(ChartTest, LineGoesThroughItsPointsInScale) {
  ReportChart chart;
  chart.title = "loss";
  chart.series = {{.name = "total", .unit = "nats", .points = {{0, 0}, {5, 10}, {10, 5}}}};
  const std::string html = RenderChart(chart);
  // x: 52 to 468 for 0 to 10; y: 180 (0) to 12 (10).
  EXPECT_THAT(PathNumbers(html, "line c0"), testing::ElementsAre(52, 180, 260, 12, 468, 96));
  EXPECT_THAT(html, HasSubstr("total <b>5 nats</b>"));
}

TEST(ChartTest, GapsBreakTheLineAndLonePointsShow) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  ReportChart chart;
  chart.series = {{.name = "a", .unit = "", .points = {{0, 1}, {1, 2}, {2, nan}, {3, 3}, {4, nan}}}};
  const std::string html = RenderChart(chart);
  EXPECT_EQ(PathNumbers(html, "line c0").size(), 6u);
  EXPECT_THAT(html, HasSubstr("<circle class=\"dot c0\""));
  EXPECT_THAT(html, HasSubstr("a <b>3</b>"));
  EXPECT_THAT(html, Not(HasSubstr("nan")));
}

TEST(ChartTest, StackedAreasAddUp) {
  ReportChart chart;
  chart.stacked = true;
  chart.series = {{.name = "low", .unit = "", .points = {{0, 1}, {1, 3}}},
                  {.name = "high", .unit = "", .points = {{0, 4}, {1, 2}}}};  // together 5 and 5
  const std::string html = RenderChart(chart);
  const std::vector<double> top = PathNumbers(html, "area c1");
  ASSERT_EQ(top.size(), 8u);  // two points of the upper edge, two of the lower edge
  EXPECT_EQ(top[1], top[3]);  // the sum is level
  EXPECT_EQ(top[1], 12);      // and the top of the axis
  const std::vector<double> bottom = PathNumbers(html, "area c0");
  EXPECT_EQ(bottom[5], 180);  // the lowest area ends at zero
  EXPECT_EQ(top[5], bottom[3]);
}

TEST(ChartTest, BarsStandSideBySideInNamedGroupsFromZeroUpAndDown) {
  ReportChart chart;
  chart.categories = {"left & first", "right"};
  chart.series = {{.name = "a", .unit = "", .points = {{0, 10}, {1, -5}}},
                  {.name = "b", .unit = "", .points = {{1, 5}}}};
  const std::string html = RenderChart(chart);
  // x from -.5 to 1.5 over 52 to 468, so 208 a group; y from 10 at 12 to -5 at 180, so 0 at 124. A group is .8 wide:
  // the first bar of the first group from -.4 to 0.
  EXPECT_THAT(PathNumbers(html, "area c0"), testing::ElementsAre(72.8, 12, 156, 12, 156, 124, 72.8, 124));
  EXPECT_THAT(html, HasSubstr("area c0\" d=\"M280.8 124.0L364.0 124.0L364.0 180.0L280.8 180.0Z"));  // down to -5
  EXPECT_THAT(PathNumbers(html, "area c1"), testing::ElementsAre(364, 68, 447.2, 68, 447.2, 124, 364, 124));
  EXPECT_THAT(html, HasSubstr(">left &amp; first</text>"));
  EXPECT_THAT(html, HasSubstr("a <b></b>")) << "the last group is not the value of the series";
  chart.series.clear();
  EXPECT_THAT(RenderChart(chart), HasSubstr("Nothing was measured"));
}

TEST(ChartTest, LongSeriesAreThinnedButKeepTheirExtremes) {
  ReportChart chart;
  chart.series = {{.name = "a", .unit = "", .points = {}}};
  for (int i = 0; i < 20000; ++i) {
    chart.series[0].points.push_back({static_cast<double>(i), i == 7777 ? 100.0 : i == 12345 ? 0.0 : 50.0});
  }
  const std::string html = RenderChart(chart);
  EXPECT_LT(html.size(), 20000u);
  const std::vector<double> numbers = PathNumbers(html, "line c0");
  EXPECT_THAT(numbers, testing::Contains(12));   // y of 100
  EXPECT_THAT(numbers, testing::Contains(180));  // y of 0
}

TEST(ChartTest, NothingMeasuredAndFlatLinesAreDrawnPlainly) {
  ReportChart chart;
  chart.title = "empty";
  EXPECT_THAT(RenderChart(chart), HasSubstr("Nothing was measured."));
  chart.series = {{.name = "flat", .unit = "", .points = {{0, 2}, {1, 2}}},
                  {.name = "one", .unit = "", .points = {{0, 2}}}};
  const std::string html = RenderChart(chart);
  EXPECT_THAT(html, Not(HasSubstr("inf")));
  EXPECT_THAT(html, Not(HasSubstr("nan")));
}

}  // namespace
}  // namespace sluice::learner
