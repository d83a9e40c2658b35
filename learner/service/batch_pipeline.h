// Batches that are collected while the learner learns from the ones before, up to a bound on
// staleness. Knows neither gRPC nor LibTorch.
#ifndef E3_LEARNER_SERVICE_BATCH_PIPELINE_H_
#define E3_LEARNER_SERVICE_BATCH_PIPELINE_H_

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "e3/v1/learner.pb.h"

namespace e3 {

// The batch of step s is learned from by the policy of step s - 1. Its collection begins when the
// weights of step s - 1 - staleness are published, so no token of it is older than that: at the
// bound the rollout servers wait for the learner, and where a batch is not ready the learner waits
// for the servers. With staleness 0 a batch is collected with the weights that learn from it.
//
// Thread-safe. Collects up to staleness + 1 batches at once.
class BatchPipeline {
 public:
  using Stop = std::function<bool()>;
  // Collects the batch of a step, until `stop` says so. Called from the pipeline's threads.
  using Collect =
      std::function<absl::StatusOr<v1::CollectedBatch>(uint64_t step, const Stop& stop)>;

  // For the steps `first` … `last`; the weights of step first - 1 are published.
  BatchPipeline(uint64_t first, uint64_t last, int64_t staleness, Collect collect);
  // Ends what is being collected.
  ~BatchPipeline();

  BatchPipeline(const BatchPipeline&) = delete;
  BatchPipeline& operator=(const BatchPipeline&) = delete;

  // The batch of the next step, waited for; an error of its collection as it is, after which the
  // pipeline is at its end. Cancelled when `stop` says so. OutOfRange after the last step.
  absl::StatusOr<v1::CollectedBatch> Take(const Stop& stop);
  // The weights of `step` are with the rollout servers.
  void Published(uint64_t step);

  // Seconds since the last call (or the beginning) in which the learner waited for a batch, and in
  // which nothing was collected.
  struct Idle {
    double learner = 0;
    double rollouts = 0;
  };
  Idle TakeIdle();

 private:
  using Clock = std::chrono::steady_clock;

  void Run();
  // Adds the time since the last change to `idle_.rollouts` when nothing was collected meanwhile.
  // With the mutex held.
  void AccountIdle();

  const uint64_t last_;
  const uint64_t staleness_;
  const Collect collect_;
  std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t next_collected_, next_taken_, published_;
  std::map<uint64_t, absl::StatusOr<v1::CollectedBatch>> ready_;
  int64_t collecting_ = 0;
  bool stopped_ = false;
  Idle idle_;
  Clock::time_point accounted_ = Clock::now();
  std::vector<std::thread> threads_;
};

}  // namespace e3

#endif  // E3_LEARNER_SERVICE_BATCH_PIPELINE_H_
