// Metrics of one process: counters, gauges and histograms, and the page that serves them.
//
// Passed in by main, never global. Label sets are made once, at construction of whoever counts; labels never
// carry an ordinal, a prompt, an actor or a version (docs/reference: metrics). Thread-safe.
#ifndef SLUICE_COMMON_METRICS_METRICS_H_
#define SLUICE_COMMON_METRICS_METRICS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sluice {

class Counter {
 public:
  virtual ~Counter() = default;
  virtual void Increment(double by = 1.0) = 0;
};

class Gauge {
 public:
  virtual ~Gauge() = default;
  virtual void Set(double value) = 0;
};

class Histogram {
 public:
  virtual ~Histogram() = default;
  virtual void Observe(double value) = 0;
};

using MetricLabels = std::map<std::string, std::string>;

class Metrics {
 public:
  Metrics();
  ~Metrics();

  // The same name and labels give the same series. Pointers live as long as this object.
  // Names start with "sluice_"; counters end in "_total"; base units (seconds, bytes).
  Counter* AddCounter(absl::string_view name, absl::string_view help, const MetricLabels& labels = {});
  Gauge* AddGauge(absl::string_view name, absl::string_view help, const MetricLabels& labels = {});
  Histogram* AddHistogram(absl::string_view name, absl::string_view help, const std::vector<double>& buckets,
                          const MetricLabels& labels = {});

  // Runs `refresh` before each scrape, to set gauges from state that others own. It must not block.
  void OnScrape(std::function<void()> refresh);

  // Serves GET /metrics at "host:port"; port 0 picks one. Unavailable, with the remedy, if the address is
  // taken. Returns the port. Adds what every process tells about itself (process_metrics.h); once.
  absl::StatusOr<int> Serve(const std::string& address);

  // What GET /metrics would answer.
  std::string Text();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sluice

#endif  // SLUICE_COMMON_METRICS_METRICS_H_
