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
#include "e3/v1/weights.grpc.pb.h"
#include "model/parameters.h"

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

// A version of the policy, to be served.
struct PublishedWeights {
  v1::WeightVersion version;
  std::string model_path;  // the folder whose architecture and tokenizer the servers load first
  const ParameterLayout* layout;            // outlives the pool's use
  std::shared_ptr<const float> parameters;  // in `layout`; not written while a Generate runs
  v1::RunningPolicy running = v1::RUNNING_POLICY_CONTINUE;
};

// Thread-safe, and parallel inside: a thread a server for each call.
class RolloutPool {
 public:
  explicit RolloutPool(std::vector<std::string> addresses);

  // Uploads the weights to every server at once, also while rollouts run, which go on as `running`
  // says. OK when at least one server has them; the others get them before they are next used.
  absl::Status Publish(PublishedWeights weights);
  // Of the weights that were published last; without a job before the first.
  v1::WeightVersion version() const;

  // The rollouts of every task, in order. Every token is of the version that was current when the
  // call began, or of one published during it. A server that dies or restarts gets the weights
  // again, and its unfinished rollouts go on elsewhere (or there) from the last token received:
  // nothing generated is thrown away. A task one of whose samples servers answered with a failure
  // three times is set aside; when all are, the failure is returned. Cancelled when `stop` says so;
  // Unavailable when no server could be reached for five minutes.
  absl::StatusOr<std::vector<TaskRollouts>> Generate(const std::vector<RolloutTask>& tasks,
                                                     const RolloutOptions& options,
                                                     const std::function<bool()>& stop);

 private:
  using Clock = std::chrono::steady_clock;
  struct Server {
    std::string address;
    std::unique_ptr<v1::Rollouts::Stub> rollouts;
    std::unique_ptr<v1::Weights::Stub> weights;
    std::mutex uploading;
    std::atomic<Clock::time_point> heard;  // of it, on any stream that has asked for something
  };
  struct Generation;
  // The weights and what the servers are told of them.
  struct Version {
    PublishedWeights weights;
    v1::Manifest manifest;
  };

  std::shared_ptr<const Version> Current() const;
  // Makes `server` serve the published weights.
  absl::Status EnsureWeights(Server& server);
  static absl::Status Upload(Server& server, const Version& version);
  // Works on the generation's queue until all is done; an error is the server's, and its work is
  // back in the queue.
  absl::Status Work(Server& server, Generation& generation);

  std::vector<std::unique_ptr<Server>> servers_;
  // When a token came last, for any call: those that run at once share the servers.
  std::atomic<Clock::time_point> progress_;
  mutable std::mutex mutex_;  // of current_
  std::shared_ptr<const Version> current_ = std::make_shared<Version>();
};

}  // namespace e3

#endif  // E3_LEARNER_SERVICE_ROLLOUT_POOL_H_
