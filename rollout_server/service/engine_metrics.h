// What the engine does, as Prometheus metrics.
#ifndef E3_ROLLOUT_SERVER_SERVICE_ENGINE_METRICS_H_
#define E3_ROLLOUT_SERVER_SERVICE_ENGINE_METRICS_H_

#include <vector>

#include "rollout_server/engine.h"
#include "services/runtime/metrics.h"

namespace e3 {

// Of one engine; the counters go on over engines. Engine thread only.
class EngineMetrics {
 public:
  EngineMetrics();
  void OnStep(const StepReport& report);
  void OnOutputs(const std::vector<SampleOutput>& outputs);
  void OnState(const Scheduler& scheduler);

 private:
  SchedulerCounters seen_;
  prometheus::Counter &tokens_, &forced_, &prefill_, &finished_, &preemptions_, &prefix_hits_,
      &prefix_tokens_;
  prometheus::Gauge &running_, &waiting_, &preempted_, &blocks_, &blocks_used_, &blocks_kept_;
  prometheus::Histogram &step_, &schedule_, &forward_, &sample_, &batch_tokens_, &batch_sequences_,
      &queue_, &first_token_, &between_tokens_;
};

}  // namespace e3

#endif  // E3_ROLLOUT_SERVER_SERVICE_ENGINE_METRICS_H_
