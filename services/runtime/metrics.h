// Prometheus metrics of this process.
#ifndef E3_SERVICES_RUNTIME_METRICS_H_
#define E3_SERVICES_RUNTIME_METRICS_H_

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace e3 {

// The registry that /metrics shows.
std::shared_ptr<prometheus::Registry> MetricsRegistry();

using Labels = std::map<std::string, std::string>;

// The metric of this name and these labels, made on first use. Thread-safe; references stay valid.
prometheus::Counter& CounterMetric(const std::string& name, const std::string& help,
                                   const Labels& labels = {});
prometheus::Gauge& GaugeMetric(const std::string& name, const std::string& help,
                               const Labels& labels = {});
prometheus::Histogram& HistogramMetric(const std::string& name, const std::string& help,
                                       const std::vector<double>& buckets,
                                       const Labels& labels = {});

}  // namespace e3

#endif  // E3_SERVICES_RUNTIME_METRICS_H_
