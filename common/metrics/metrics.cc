#include "common/metrics/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/exposer.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <exception>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/metrics/process_metrics.h"
#include "common/sync/mutex.h"

namespace sluice {
namespace {

class PrometheusCounter : public Counter {
 public:
  explicit PrometheusCounter(prometheus::Counter* counter) : counter_(counter) {}
  void Increment(double by) override { counter_->Increment(by); }

 private:
  prometheus::Counter* counter_;
};

class PrometheusGauge : public Gauge {
 public:
  explicit PrometheusGauge(prometheus::Gauge* gauge) : gauge_(gauge) {}
  void Set(double value) override { gauge_->Set(value); }

 private:
  prometheus::Gauge* gauge_;
};

class PrometheusHistogram : public Histogram {
 public:
  explicit PrometheusHistogram(prometheus::Histogram* histogram) : histogram_(histogram) {}
  void Observe(double value) override { histogram_->Observe(value); }

 private:
  prometheus::Histogram* histogram_;
};

}  // namespace

// Collects the registry after the refresh functions ran.
struct Metrics::Impl : public prometheus::Collectable {
  std::vector<prometheus::MetricFamily> Collect() const override {
    std::vector<std::function<void()>> refresh;
    {
      MutexLock lock(&mutex);
      refresh = refreshers;
    }
    for (const std::function<void()>& function : refresh) function();
    return registry.Collect();
  }

  prometheus::Registry registry;
  mutable Mutex mutex;
  std::vector<std::function<void()>> refreshers ABSL_GUARDED_BY(mutex);
  std::vector<std::unique_ptr<Counter>> counters ABSL_GUARDED_BY(mutex);
  std::vector<std::unique_ptr<Gauge>> gauges ABSL_GUARDED_BY(mutex);
  std::vector<std::unique_ptr<Histogram>> histograms ABSL_GUARDED_BY(mutex);
  std::shared_ptr<Impl> self;  // an alias without ownership, as the exposer wants a weak_ptr
  std::unique_ptr<prometheus::Exposer> exposer;
};

Metrics::Metrics() : impl_(std::make_unique<Impl>()) {
  impl_->self = std::shared_ptr<Impl>(impl_.get(), [](Impl*) {});
}

Metrics::~Metrics() { impl_->exposer.reset(); }

Counter* Metrics::AddCounter(absl::string_view name, absl::string_view help, const MetricLabels& labels) {
  auto& family = prometheus::BuildCounter().Name(std::string(name)).Help(std::string(help)).Register(impl_->registry);
  MutexLock lock(&impl_->mutex);
  impl_->counters.push_back(std::make_unique<PrometheusCounter>(&family.Add(labels)));
  return impl_->counters.back().get();
}

Gauge* Metrics::AddGauge(absl::string_view name, absl::string_view help, const MetricLabels& labels) {
  auto& family = prometheus::BuildGauge().Name(std::string(name)).Help(std::string(help)).Register(impl_->registry);
  MutexLock lock(&impl_->mutex);
  impl_->gauges.push_back(std::make_unique<PrometheusGauge>(&family.Add(labels)));
  return impl_->gauges.back().get();
}

Histogram* Metrics::AddHistogram(absl::string_view name, absl::string_view help, const std::vector<double>& buckets,
                                 const MetricLabels& labels) {
  auto& family = prometheus::BuildHistogram().Name(std::string(name)).Help(std::string(help)).Register(impl_->registry);
  MutexLock lock(&impl_->mutex);
  impl_->histograms.push_back(std::make_unique<PrometheusHistogram>(&family.Add(labels, buckets)));
  return impl_->histograms.back().get();
}

void Metrics::OnScrape(std::function<void()> refresh) {
  MutexLock lock(&impl_->mutex);
  impl_->refreshers.push_back(std::move(refresh));
}

absl::StatusOr<int> Metrics::Serve(const std::string& address) {
  const size_t colon = address.rfind(':');
  int port = 0;
  if (colon == std::string::npos || colon == 0 || !absl::SimpleAtoi(address.substr(colon + 1), &port) || port < 0 ||
      port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("--metrics-address: want HOST:PORT with a port from 0 (any) to 65535, got '", address, "'"));
  }
  try {
    impl_->exposer = std::make_unique<prometheus::Exposer>(address, 1);
    AddProcessMetrics(this);
    impl_->exposer->RegisterCollectable(impl_->self);
    return impl_->exposer->GetListeningPorts().front();
  } catch (const std::exception& error) {
    // The library's own words ("null context when constructing CivetServer") help nobody, but a developer.
    return absl::UnavailableError(absl::StrCat("cannot serve metrics at ", address,
                                               ": the address is in use or not of this machine; stop the other "
                                               "process or choose another one with --metrics-address (",
                                               error.what(), ")"));
  }
}

std::string Metrics::Text() { return prometheus::TextSerializer().Serialize(impl_->Collect()); }

}  // namespace sluice
