// The inference engine: requests in, tokens out, one step at a time.
#ifndef E3_ROLLOUT_SERVER_ENGINE_H_
#define E3_ROLLOUT_SERVER_ENGINE_H_

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "rollout_server/model_runner.h"
#include "rollout_server/scheduler.h"
#include "rollout_server/sequence.h"

namespace e3 {

struct EngineLimits {
  SchedulerLimits scheduler;
  int32_t num_blocks = 0;
  int64_t context_length = 0;   // prompt + budget at most
  int64_t max_waiting = 65536;  // requests
  std::vector<uint32_t> eos_token_ids;
  // The text of tokens, for stop strings; without it a request with stop strings is refused.
  std::function<std::string(const std::vector<uint32_t>&)> decode;
};

// Where the time of a step went, and what it did.
struct StepReport {
  Clock::time_point begin;
  double schedule_seconds = 0, forward_seconds = 0, sample_seconds = 0;
  int64_t prefill_tokens = 0, decode_tokens = 0;
  int64_t sequences = 0;  // that had a part in it
  int64_t running = 0, waiting = 0, blocks_used = 0;
};

// Not thread-safe: one thread adds, cancels and steps.
class Engine {
 public:
  // `runner` outlives the engine.
  Engine(const EngineLimits& limits, ModelRunner* runner);

  // InvalidArgument says what is wrong with a request; OutOfRange when prompt + budget exceed the
  // model's context or the cache; ResourceExhausted when too many wait.
  absl::Status Add(RolloutRequest request);
  // The samples that had not finished; empty for an unknown request.
  std::vector<uint32_t> Cancel(uint64_t request_id);
  // Runs one step: at most one drawn token of every sample. Empty when idle or when only prompts
  // were computed.
  std::vector<SampleOutput> Step();

  // Ends every sample that was started, with Finish::kCut and the tokens that it has.
  std::vector<SampleOutput> Cut();
  // See Scheduler.
  void WeightsChanged(bool recompute) { scheduler_.WeightsChanged(recompute); }
  void SetDraining(bool draining) { scheduler_.SetDraining(draining); }
  bool drained() const { return scheduler_.drained() && pending_.empty(); }
  void SetPaused(uint64_t client, bool paused) { scheduler_.SetPaused(client, paused); }

  bool idle() const { return scheduler_.idle() && pending_.empty(); }
  const EngineLimits& limits() const { return limits_; }
  const Scheduler& scheduler() const { return scheduler_; }
  // Of the last step; without sequences when it computed nothing.
  const StepReport& last_step() const { return report_; }

 private:
  absl::Status Check(const RolloutRequest& request) const;
  Batch MakeBatch(const SchedulerStep& step);
  // Takes a token, drawn at `now`, into the sequence; may end it.
  SampleOutput Append(Sequence* sequence, OutputToken drawn, Clock::time_point now);
  bool HitsStopString(const Sequence& sequence) const;
  void Stamp(Sequence* sequence, Clock::time_point now, SampleOutput* output);

  EngineLimits limits_;
  ModelRunner* runner_;
  Scheduler scheduler_;
  StepReport report_;
  std::vector<SampleOutput> pending_;  // of requests that were added: rests of forced prefixes
};

}  // namespace e3

#endif  // E3_ROLLOUT_SERVER_ENGINE_H_
