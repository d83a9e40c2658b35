#include "rollout_server/service/engine_metrics.h"

namespace e3 {
namespace {

// From a step of a small model to one of a large prompt, and from a token to a long wait.
const std::vector<double> kStepBuckets = {1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02,
                                          0.05, 0.1,  0.2,  0.5,  1,    2,    5};
const std::vector<double> kWaitBuckets = {1e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                                          1,    2.5,  5,    10,    30,   60,  300};
const std::vector<double> kCountBuckets = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096};

prometheus::Histogram& Phase(const char* phase) {
  return HistogramMetric("e3_rollout_step_phase_seconds", "Duration of the phases of engine steps",
                         kStepBuckets, {{"phase", phase}});
}

}  // namespace

EngineMetrics::EngineMetrics()
    : tokens_(CounterMetric("e3_rollout_tokens_total", "Tokens generated, forced ones included")),
      forced_(CounterMetric("e3_rollout_forced_tokens_total", "Tokens appended by budget forcing")),
      prefill_(CounterMetric("e3_rollout_prefill_tokens_total", "Prompt tokens computed")),
      finished_(CounterMetric("e3_rollout_finished_total", "Samples finished")),
      preemptions_(CounterMetric("e3_rollout_preemptions_total",
                                 "Sequences preempted for lack of KV blocks")),
      prefix_hits_(CounterMetric("e3_rollout_prefix_hit_tokens_total",
                                 "Tokens whose keys and values the prefix cache had")),
      prefix_tokens_(CounterMetric("e3_rollout_prefix_tokens_total",
                                   "Tokens of admitted sequences, looked up in the prefix cache")),
      running_(GaugeMetric("e3_rollout_running", "Sequences in the running batch")),
      waiting_(GaugeMetric("e3_rollout_waiting",
                           "Sequences waiting for KV blocks or a place, preempted ones included")),
      preempted_(GaugeMetric("e3_rollout_preempted", "Preempted sequences that wait")),
      blocks_(GaugeMetric("e3_rollout_kv_blocks", "KV cache blocks")),
      blocks_used_(GaugeMetric("e3_rollout_kv_blocks_used", "KV cache blocks in use")),
      blocks_kept_(GaugeMetric("e3_rollout_kv_blocks_kept",
                               "Unused KV cache blocks whose content is kept as prefixes")),
      step_(HistogramMetric("e3_rollout_step_seconds", "Duration of engine steps", kStepBuckets)),
      schedule_(Phase("schedule")),
      forward_(Phase("forward")),
      sample_(Phase("sample")),
      batch_tokens_(
          HistogramMetric("e3_rollout_batch_tokens", "Tokens of an engine step", kCountBuckets)),
      batch_sequences_(HistogramMetric("e3_rollout_batch_sequences", "Sequences of an engine step",
                                       kCountBuckets)),
      queue_(
          HistogramMetric("e3_rollout_queue_seconds", "From arrival to admission", kWaitBuckets)),
      first_token_(HistogramMetric("e3_rollout_first_token_seconds",
                                   "From arrival to the first token", kWaitBuckets)),
      between_tokens_(HistogramMetric("e3_rollout_inter_token_seconds",
                                      "Between two tokens of a sample", kWaitBuckets)) {}

void EngineMetrics::OnStep(const StepReport& r) {
  step_.Observe(r.schedule_seconds + r.forward_seconds + r.sample_seconds);
  schedule_.Observe(r.schedule_seconds);
  forward_.Observe(r.forward_seconds);
  sample_.Observe(r.sample_seconds);
  batch_tokens_.Observe(static_cast<double>(r.prefill_tokens + r.decode_tokens));
  batch_sequences_.Observe(static_cast<double>(r.sequences));
  prefill_.Increment(static_cast<double>(r.prefill_tokens));
}

void EngineMetrics::OnOutputs(const std::vector<SampleOutput>& outputs) {
  double tokens = 0, forced = 0, finished = 0;
  for (const SampleOutput& o : outputs) {
    tokens += static_cast<double>(o.tokens.size());
    for (const OutputToken& token : o.tokens) forced += token.forced;
    finished += o.finish != Finish::kNone;
    if (o.first) queue_.Observe(o.queue_seconds);
    if (o.since_seconds > 0) (o.first ? first_token_ : between_tokens_).Observe(o.since_seconds);
  }
  tokens_.Increment(tokens);
  forced_.Increment(forced);
  finished_.Increment(finished);
}

void EngineMetrics::OnState(const Scheduler& scheduler) {
  const SchedulerCounters& now = scheduler.counters();
  preemptions_.Increment(static_cast<double>(now.preempted - seen_.preempted));
  prefix_hits_.Increment(static_cast<double>(now.prefix_hit_tokens - seen_.prefix_hit_tokens));
  prefix_tokens_.Increment(static_cast<double>(now.prefix_tokens - seen_.prefix_tokens));
  seen_ = now;
  running_.Set(static_cast<double>(scheduler.num_running()));
  waiting_.Set(static_cast<double>(scheduler.num_waiting()));
  preempted_.Set(static_cast<double>(scheduler.num_preempted()));
  const BlockManager& blocks = scheduler.blocks();
  blocks_.Set(blocks.num_blocks());
  blocks_used_.Set(blocks.num_blocks() - blocks.num_free());
  blocks_kept_.Set(blocks.num_kept());
}

}  // namespace e3
