// The last engine steps, for a person with a trace viewer.
#ifndef E3_ROLLOUT_SERVER_SERVICE_STEP_TRACE_H_
#define E3_ROLLOUT_SERVER_SERVICE_STEP_TRACE_H_

#include <cstddef>
#include <deque>
#include <mutex>
#include <string>

#include "rollout_server/engine.h"

namespace e3 {

// Thread-safe.
class StepTrace {
 public:
  void Add(const StepReport& report);
  // Something that happened between two steps, such as a switch of weights.
  void Mark(const std::string& name, Clock::time_point begin, double seconds);
  // Chrome's trace event format (chrome://tracing, ui.perfetto.dev): each step with its phases, and
  // counters of tokens, sequences and blocks.
  std::string Json() const;

 private:
  static constexpr size_t kKept = 4096;
  struct Event {
    std::string name;  // empty: a step
    StepReport step;   // of a mark: begin and schedule_seconds alone
  };
  mutable std::mutex mutex_;
  std::deque<Event> events_;
};

}  // namespace e3

#endif  // E3_ROLLOUT_SERVER_SERVICE_STEP_TRACE_H_
