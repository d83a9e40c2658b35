#include "services/runtime/metrics.h"

namespace e3 {

std::shared_ptr<prometheus::Registry> MetricsRegistry() {
  // Merge: asking for the same family twice gives the same one.
  static auto* registry = new std::shared_ptr<prometheus::Registry>(
      std::make_shared<prometheus::Registry>(prometheus::Registry::InsertBehavior::Merge));
  return *registry;
}

prometheus::Counter& CounterMetric(const std::string& name, const std::string& help,
                                   const Labels& labels) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(*MetricsRegistry()).Add(labels);
}

prometheus::Gauge& GaugeMetric(const std::string& name, const std::string& help,
                               const Labels& labels) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(*MetricsRegistry()).Add(labels);
}

prometheus::Histogram& HistogramMetric(const std::string& name, const std::string& help,
                                       const std::vector<double>& buckets, const Labels& labels) {
  return prometheus::BuildHistogram()
      .Name(name)
      .Help(help)
      .Register(*MetricsRegistry())
      .Add(labels, buckets);
}

}  // namespace e3
