// The rollout servers as the learner sees them: all hold its weights, and together they generate.
#ifndef E3_LEARNER_SERVICE_ROLLOUT_POOL_H_
#define E3_LEARNER_SERVICE_ROLLOUT_POOL_H_

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

// A version of the policy, to be served. `parameters` in `layout`; both outlive the pool's use of
// them.
struct PublishedWeights {
  v1::WeightVersion version;
  std::string model_path;  // the folder whose architecture and tokenizer the servers load first
  const ParameterLayout* layout;
  const float* parameters;
};

// Not thread-safe, but parallel inside: a thread a server.
class RolloutPool {
 public:
  explicit RolloutPool(std::vector<std::string> addresses);

  // Uploads the weights to every server at once. OK when at least one server has them; the others
  // get them before they are next used.
  absl::Status Publish(const PublishedWeights& weights);

  // The rollouts of every task, in order. A server that dies or restarts gets the weights again,
  // and its unfinished rollouts go on elsewhere (or there) from the last token received: nothing
  // generated is thrown away. Cancelled when `stop` says so; Unavailable when no server could be
  // reached for five minutes; a server's refusal of a request (InvalidArgument, OutOfRange) as it
  // is.
  absl::StatusOr<std::vector<std::vector<v1::Rollout>>> Generate(
      const std::vector<RolloutTask>& tasks, const RolloutOptions& options,
      const std::function<bool()>& stop);

 private:
  struct Server {
    std::string address;
    std::unique_ptr<v1::Rollouts::Stub> rollouts;
    std::unique_ptr<v1::Weights::Stub> weights;
  };
  struct Generation;

  // Makes `server` serve the published weights.
  absl::Status EnsureWeights(Server& server);
  absl::Status Upload(Server& server);
  // Works on the generation's queue until all is done; an error is the server's, and its work is
  // back in the queue.
  absl::Status Work(Server& server, Generation& generation);

  std::vector<Server> servers_;
  PublishedWeights weights_;
  v1::Manifest manifest_;
};

}  // namespace e3

#endif  // E3_LEARNER_SERVICE_ROLLOUT_POOL_H_
