// Requests of the reward service, judged.
#ifndef E3_REWARD_SERVICE_VERIFIER_H_
#define E3_REWARD_SERVICE_VERIFIER_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "e3/v1/rewards.pb.h"
#include "reward_service/math/limits.h"
#include "reward_service/verdict.h"
#include "reward_service/verdict_cache.h"

namespace e3 {

// Makes the verifier of a plug-in task from the problem's own form; InvalidArgument says what is
// wrong with it.
using TaskFactory =
    std::function<absl::StatusOr<std::unique_ptr<TaskVerifier>>(absl::string_view problem)>;

// Adds a task that requests can name in PluginTask.name. Call before requests are judged.
void RegisterTask(std::string name, TaskFactory factory);

// "math", "countdown", "multiplication", a plug-in task's name when it is registered, or "none".
std::string TaskName(const v1::ScoreRequest& request);

// Judges requests with one set of limits and one cache. Thread-safe.
class Scorer {
 public:
  // `cache_entries` 0: no cache.
  explicit Scorer(math::Limits limits = {}, size_t cache_entries = 0)
      : limits_(limits), cache_(cache_entries) {}

  // Runs the verifier of the request's task, at every budget too, and measures the trace. A request
  // that cannot be judged gets error_code and error, never a score.
  v1::ScoreReply Score(const v1::ScoreRequest& request);
  VerdictCache::Counts cache_counts() const { return cache_.counts(); }

 private:
  absl::StatusOr<Verdict> Judge(const std::string& name, const TaskVerifier& task,
                                const Answer& answer);

  const math::Limits limits_;
  VerdictCache cache_;
};

}  // namespace e3

#endif  // E3_REWARD_SERVICE_VERIFIER_H_
