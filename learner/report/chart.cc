#include "learner/report/chart.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "learner/report/text.h"

namespace sluice::learner {
namespace {

// Drawing area, in SVG units; the page scales it.
constexpr double kWidth = 480, kHeight = 224;
constexpr double kLeft = 52, kRight = 12, kTop = 12, kBottom = 44;
constexpr int kColours = 8;       // classes c0 to c7 of the style sheet
constexpr size_t kBuckets = 300;  // thinned series keep the lowest and the highest point of each

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();

  bool empty() const { return low > high; }
  void Add(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
};

// Round numbers that cover a range.
struct Axis {
  double low = 0, high = 1, step = 1;
};

Axis MakeAxis(Range range, int wanted) {
  if (range.high - range.low < 1e-12 * std::max(1.0, std::fabs(range.high))) {
    const double margin = range.high == 0 ? 1 : std::fabs(range.high) * 0.1;
    range = {.low = range.low - margin, .high = range.high + margin};
  }
  const double rough = (range.high - range.low) / wanted;
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  Axis axis;
  axis.step = 10 * power;
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= rough) {
      axis.step = factor * power;
      break;
    }
  }
  axis.low = std::floor(range.low / axis.step + 1e-6) * axis.step;
  axis.high = std::ceil(range.high / axis.step - 1e-6) * axis.step;
  return axis;
}

// Multiples of the step inside the axis.
std::vector<double> Ticks(const Axis& axis) {
  std::vector<double> ticks;
  const double first = std::ceil(axis.low / axis.step - 1e-6), last = std::floor(axis.high / axis.step + 1e-6);
  for (double i = first; i <= last && ticks.size() < 64; ++i) ticks.push_back(i * axis.step);
  return ticks;
}

std::string AxisNumber(double value, double step) {
  if (std::fabs(value) < step * 1e-9) return "0";
  if (std::fabs(value) >= 1e5 || step < 1e-4) return absl::StrFormat("%.3g", value);
  const int decimals = std::max(0, static_cast<int>(std::ceil(-std::log10(step) - 1e-9)));
  return absl::StrFormat("%.*f", decimals, value);
}

bool Drawable(const ReportPoint& point) { return std::isfinite(point.x) && std::isfinite(point.y); }

// At most about 2 kBuckets points, extremes kept, gaps kept.
std::vector<ReportPoint> Thin(const std::vector<ReportPoint>& points) {
  if (points.size() <= 2 * kBuckets) return points;
  std::vector<ReportPoint> thin;
  for (size_t bucket = 0; bucket < kBuckets; ++bucket) {
    const size_t begin = bucket * points.size() / kBuckets, end = (bucket + 1) * points.size() / kBuckets;
    std::optional<size_t> low, high, gap;
    for (size_t i = begin; i < end; ++i) {
      if (!Drawable(points[i])) {
        gap = i;
        continue;
      }
      if (!low || points[i].y < points[*low].y) low = i;
      if (!high || points[i].y > points[*high].y) high = i;
    }
    std::vector<size_t> kept;
    for (const std::optional<size_t>& index : {low, high, gap}) {
      if (index) kept.push_back(*index);
    }
    std::sort(kept.begin(), kept.end());
    kept.erase(std::unique(kept.begin(), kept.end()), kept.end());
    for (const size_t index : kept) thin.push_back(points[index]);
  }
  return thin;
}

// Series on top of each other: entry i holds the upper edge of series i at every x that occurs.
std::vector<std::vector<ReportPoint>> Stack(const std::vector<ReportSeries>& series) {
  std::map<double, std::vector<double>> rows;
  for (size_t s = 0; s < series.size(); ++s) {
    for (const ReportPoint& point : series[s].points) {
      if (!Drawable(point)) continue;
      std::vector<double>& row = rows[point.x];
      row.resize(series.size(), 0.0);
      row[s] = std::max(0.0, point.y);
    }
  }
  // Thinned by leaving out whole columns, so that the edges stay joined.
  const size_t every = rows.size() / (2 * kBuckets) + 1;
  std::vector<std::vector<ReportPoint>> edges(series.size());
  size_t column = 0;
  for (const auto& [x, row] : rows) {
    if (column++ % every != 0 && column != rows.size()) continue;
    double total = 0;
    for (size_t s = 0; s < series.size(); ++s) edges[s].push_back({.x = x, .y = total += row[s]});
  }
  return edges;
}

class Drawing {
 public:
  Drawing(const Axis& x, const Axis& y) : x_(x), y_(y) {}

  double X(double value) const { return kLeft + (value - x_.low) / (x_.high - x_.low) * (kWidth - kLeft - kRight); }
  double Y(double value) const {
    return kHeight - kBottom - (value - y_.low) / (y_.high - y_.low) * (kHeight - kTop - kBottom);
  }

  // categories: names at x = 0, 1, ... in place of numbers; empty: numbers.
  void Grid(const std::string& x_label, const std::vector<std::string>& categories) {
    for (const double v : Ticks(y_)) {
      absl::StrAppendFormat(&svg_, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>", kLeft,
                            kWidth - kRight, Y(v), Y(v));
      absl::StrAppendFormat(&svg_, "<text class=\"y\" x=\"%.1f\" y=\"%.1f\">%s</text>", kLeft - 8, Y(v) + 4,
                            AxisNumber(v, y_.step));
    }
    const auto name = [this](double at, const std::string& text) {
      absl::StrAppendFormat(&svg_, "<text class=\"x\" x=\"%.1f\" y=\"%.1f\">%s</text>", X(at), kHeight - kBottom + 22,
                            text);
    };
    for (size_t i = 0; i < categories.size(); ++i) name(static_cast<double>(i), EscapeHtml(categories[i]));
    if (categories.empty()) {
      for (const double v : Ticks(x_)) name(v, AxisNumber(v, x_.step));
    }
    absl::StrAppendFormat(&svg_, "<text class=\"x\" x=\"%.1f\" y=\"%.1f\">%s</text>", (kLeft + kWidth - kRight) / 2,
                          kHeight - 6, EscapeHtml(x_label));
  }

  void Line(const std::vector<ReportPoint>& points, int colour) {
    std::string path;
    bool pen_down = false;
    for (size_t i = 0; i < points.size(); ++i) {
      if (!Drawable(points[i])) {
        pen_down = false;
        continue;
      }
      const bool alone = !pen_down && (i + 1 == points.size() || !Drawable(points[i + 1]));
      if (alone) Dot(points[i], colour);
      absl::StrAppendFormat(&path, "%c%.1f %.1f", pen_down ? 'L' : 'M', X(points[i].x), Y(points[i].y));
      pen_down = true;
    }
    absl::StrAppend(&svg_, "<path class=\"line c", colour, "\" d=\"", path, "\"/>");
  }

  // Between an upper edge and the one below it; both over the same x.
  void Area(const std::vector<ReportPoint>& upper, const std::vector<ReportPoint>* lower, int colour) {
    if (upper.size() == 1) return Dot(upper[0], colour);
    std::string path;
    for (size_t i = 0; i < upper.size(); ++i) {
      absl::StrAppendFormat(&path, "%c%.1f %.1f", i == 0 ? 'M' : 'L', X(upper[i].x), Y(upper[i].y));
    }
    for (size_t i = upper.size(); i-- > 0;) {
      absl::StrAppendFormat(&path, "L%.1f %.1f", X(upper[i].x), Y(lower == nullptr ? 0 : (*lower)[i].y));
    }
    absl::StrAppend(&svg_, "<path class=\"area c", colour, "\" d=\"", path, "Z\"/>");
  }

  // From 0 to each point; series number `index` of `count` in a group that is as wide as 0.8 of x.
  void Bars(const std::vector<ReportPoint>& points, size_t index, size_t count, int colour) {
    const double width = 0.8 / static_cast<double>(count);
    for (const ReportPoint& point : points) {
      if (!Drawable(point)) continue;
      const double left = X(point.x - 0.4 + width * static_cast<double>(index));
      const double top = Y(std::max(0.0, point.y)), bottom = Y(std::min(0.0, point.y));
      absl::StrAppendFormat(&svg_, "<path class=\"area c%d\" d=\"M%.1f %.1fL%.1f %.1fL%.1f %.1fL%.1f %.1fZ\"/>", colour,
                            left, top, X(point.x - 0.4 + width * static_cast<double>(index + 1)), top,
                            X(point.x - 0.4 + width * static_cast<double>(index + 1)), bottom, left, bottom);
    }
  }

  std::string Finish(const std::string& title) const {
    return absl::StrFormat("<svg viewBox=\"0 0 %.0f %.0f\" role=\"img\" aria-label=\"%s\">%s</svg>", kWidth, kHeight,
                           EscapeHtml(title), svg_);
  }

 private:
  void Dot(const ReportPoint& point, int colour) {
    absl::StrAppendFormat(&svg_, "<circle class=\"dot c%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"/>", colour, X(point.x),
                          Y(point.y));
  }

  const Axis x_, y_;
  std::string svg_;
};

std::string LegendEntry(const ReportSeries& series, int colour, const ReportChart& chart) {
  const bool area = chart.stacked || !chart.categories.empty();
  std::string value = "no values";
  for (size_t i = series.points.size(); i-- > 0;) {
    if (!Drawable(series.points[i])) continue;
    if (!chart.categories.empty()) {  // the last group is no better than the others
      value.clear();
      break;
    }
    value = FormatNumber(series.points[i].y);
    if (!series.unit.empty()) absl::StrAppend(&value, " ", EscapeHtml(series.unit));
    break;
  }
  return absl::StrCat("<li><svg class=\"key\" viewBox=\"0 0 24 8\" aria-hidden=\"true\"><path class=\"",
                      area ? "area" : "line", " c", colour,
                      area ? "\" d=\"M8 0L24 0L24 8L8 8Z\"/></svg>" : "\" d=\"M0 4L24 4\"/></svg>",
                      EscapeHtml(series.name), " <b>", value, "</b></li>");
}

}  // namespace

std::string RenderChart(const ReportChart& chart) {
  std::string html = absl::StrCat("<figure class=\"chart\"><figcaption><h3>", EscapeHtml(chart.title), "</h3>");
  if (!chart.note.empty()) absl::StrAppend(&html, "<p>", EscapeHtml(chart.note), "</p>");
  absl::StrAppend(&html, "<ul class=\"legend\">");
  for (size_t s = 0; s < chart.series.size(); ++s) {
    absl::StrAppend(&html, LegendEntry(chart.series[s], static_cast<int>(s) % kColours, chart));
  }
  absl::StrAppend(&html, "</ul></figcaption>");

  const std::vector<std::vector<ReportPoint>> edges =
      chart.stacked ? Stack(chart.series) : std::vector<std::vector<ReportPoint>>();
  Range x, y;
  for (const ReportSeries& series : chart.series) {
    for (const ReportPoint& point : series.points) {
      if (!Drawable(point)) continue;
      x.Add(point.x);
      if (!chart.stacked) y.Add(point.y);
    }
  }
  if (!chart.categories.empty() && !x.empty()) {
    y.Add(0);
    x.Add(-0.5);
    x.Add(static_cast<double>(chart.categories.size()) - 0.5);
  }
  if (chart.stacked) {
    y.Add(0);
    for (const std::vector<ReportPoint>& edge : edges) {
      for (const ReportPoint& point : edge) y.Add(point.y);
    }
  }
  if (x.empty()) return absl::StrCat(html, "<p>Nothing was measured.</p></figure>");

  Axis x_axis = MakeAxis(x, 6);
  if (x.high > x.low) {  // curves use the whole width, ticks stay on round numbers
    x_axis.low = x.low;
    x_axis.high = x.high;
  }
  Drawing drawing(x_axis, MakeAxis(y, 5));
  drawing.Grid(chart.x_label, chart.categories);
  for (size_t s = chart.series.size(); s-- > 0;) {
    const int colour = static_cast<int>(s) % kColours;
    if (!chart.categories.empty()) {
      drawing.Bars(chart.series[s].points, s, chart.series.size(), colour);
    } else if (chart.stacked) {
      drawing.Area(edges[s], s == 0 ? nullptr : &edges[s - 1], colour);
    } else {
      drawing.Line(Thin(chart.series[s].points), colour);
    }
  }
  return absl::StrCat(html, drawing.Finish(chart.title), "</figure>");
}

}  // namespace sluice::learner
