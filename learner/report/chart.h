// Charts as inline SVG: lines, areas stacked on each other, or bars side by side. Colours, line styles and text sizes
// come from the style sheet of report.cc, so that one drawing serves light, dark and printed pages.
#ifndef SLUICE_LEARNER_REPORT_CHART_H_
#define SLUICE_LEARNER_REPORT_CHART_H_

#include <string>
#include <vector>

namespace sluice::learner {

struct ReportPoint {
  double x = 0;
  double y = 0;  // not finite: a gap in the line
};

struct ReportSeries {
  std::string name;
  std::string unit;                 // empty: a pure number
  std::vector<ReportPoint> points;  // by rising x
};

struct ReportChart {
  std::string title;
  std::string note;  // a sentence below the title; may be empty
  std::string x_label = "step";
  // Areas stacked in the order of the series, joined by x; a series without a point at some x adds nothing there.
  // Values must not be negative.
  bool stacked = false;
  // Bars side by side in groups of these names: x = 0 is the first group. Empty: no bars.
  std::vector<std::string> categories;
  std::vector<ReportSeries> series;  // more than eight share colours; those without points are named, not drawn
};

// The chart as one <figure> element: title, legend with the last value of each series, drawing. Long series are
// thinned to what a screen can show, keeping their extremes. Never fails: a chart without points says so.
std::string RenderChart(const ReportChart& chart);

}  // namespace sluice::learner

#endif  // SLUICE_LEARNER_REPORT_CHART_H_
