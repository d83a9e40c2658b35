// The rollout servers as the learner sees them: all hold its weights, and together they generate.
#ifndef E3_LEARNER_SERVICE_ROLLOUT_POOL_H_
#define E3_LEARNER_SERVICE_ROLLOUT_POOL_H_

#include <atomic>
#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "e3/v1/learner.pb.h"
#include "e3/v1/rollouts.grpc.pb.h"
#include "learner/service/weight_publisher.h"

namespace e3 {

// n rollouts of one prompt.
struct RolloutTask {
  std::vector<uint32_t> prompt;
  int64_t n;
  uint64_t seed;
};

struct RolloutOptions {
  int64_t budget;
  v1::SamplingParams sampling;
};

// What became of a task.
struct TaskRollouts {
  // n of them, in order of sample; not all finished when `status` is not OK.
  std::vector<v1::Rollout> rollouts;
  // OK, or why the task was set aside: the last of the failures that servers answered it with.
  absl::Status status;
};

// Thread-safe, and parallel inside: a thread a server for each call.
class RolloutPool {
 public:
  explicit RolloutPool(std::vector<std::string> addresses);

  // The weights that are generated with.
  WeightPublisher& weights() { return *weights_; }

  // The rollouts of every task, in order. Every token is of the version that was current when the
  // call began, or of one published during it. A server that dies or restarts gets the weights
  // again, and its unfinished rollouts go on elsewhere (or there) from the last token received:
  // nothing generated is thrown away. A task one of whose samples servers answered with a failure
  // three times, or that servers died of three times, is set aside; when all are, the failure is
  // returned. Cancelled when `stop` says so;
  // Unavailable when no server has generated anything for ten minutes.
  absl::StatusOr<std::vector<TaskRollouts>> Generate(const std::vector<RolloutTask>& tasks,
                                                     const RolloutOptions& options,
                                                     const std::function<bool()>& stop);

 private:
  using Clock = std::chrono::steady_clock;
  struct Server {
    std::string address;
    size_t index;  // for weights()
    std::unique_ptr<v1::Rollouts::Stub> rollouts;
    std::atomic<Clock::time_point> heard;  // of it, on any stream that has asked for something
    // It has been waiting for its weights for long, and counts as away until it has them.
    std::atomic<bool> late{false};
    std::atomic<bool> told{false};  // that it is away; until something is heard of it
    std::mutex mutex;               // of the rest; after a generation's
    // Of all generations: samples that were asked for and nothing was heard of yet. When one of
    // them is a suspect (Generation::Suspect) it is the only one.
    int64_t silent = 0;
    bool suspect = false;
  };
  struct Generation;
  // Works on the generation's queue until all is done; an error is the server's, and its work is
  // back in the queue.
  absl::Status Work(Server& server, Generation& generation);

  std::vector<std::unique_ptr<Server>> servers_;
  std::unique_ptr<WeightPublisher> weights_;
  // When a token came last, for any call: those that run at once share the servers.
  std::atomic<Clock::time_point> progress_;
};

}  // namespace e3

#endif  // E3_LEARNER_SERVICE_ROLLOUT_POOL_H_
