// The inference engine: requests in, tokens out, one step at a time.
#ifndef E3_ROLLOUT_SERVER_ENGINE_H_
#define E3_ROLLOUT_SERVER_ENGINE_H_

#include <cstdint>
#include <map>
#include <set>
#include <vector>

#include "absl/status/status.h"
#include "rollout_server/model_runner.h"
#include "rollout_server/scheduler.h"
#include "rollout_server/sequence.h"

namespace e3 {

struct EngineLimits {
  SchedulerLimits scheduler;
  int32_t num_blocks = 0;
  int64_t context_length = 0;  // prompt + budget at most
  std::vector<uint32_t> eos_token_ids;
};

// What the last steps did, for metrics.
struct EngineCounters {
  uint64_t steps = 0;
  uint64_t prefill_tokens = 0;
  uint64_t decode_tokens = 0;
};

// Not thread-safe: one thread adds, cancels and steps.
class Engine {
 public:
  // `runner` outlives the engine.
  Engine(const EngineLimits& limits, ModelRunner* runner);

  // InvalidArgument says what is wrong with a request; OutOfRange when prompt + budget exceed the
  // model's context or the cache.
  absl::Status Add(const RolloutRequest& request);
  // The samples that had not finished; empty for an unknown request.
  std::vector<uint32_t> Cancel(uint64_t request_id);
  // Runs one step; at most one token of every sample. Empty when idle or when only prompts were
  // computed.
  std::vector<TokenOutput> Step();
  // Computes all keys and values again, e.g. because the weights changed.
  void RecomputeAll() { scheduler_.PreemptAll(); }

  bool idle() const { return scheduler_.idle(); }
  const Scheduler& scheduler() const { return scheduler_; }
  const EngineCounters& counters() const { return counters_; }

 private:
  TokenOutput Append(Sequence* sequence, const struct Draw& draw);

  EngineLimits limits_;
  ModelRunner* runner_;
  Scheduler scheduler_;
  EngineCounters counters_;
};

}  // namespace e3

#endif  // E3_ROLLOUT_SERVER_ENGINE_H_
