// The thread that owns the model and the engine, and the queues around it. Knows nothing of gRPC.
#ifndef E3_ROLLOUT_SERVER_SERVICE_ENGINE_THREAD_H_
#define E3_ROLLOUT_SERVER_SERVICE_ENGINE_THREAD_H_

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "e3/v1/rollouts.pb.h"
#include "rollout_server/engine.h"

namespace e3 {

class Transformer;

// Where the tokens of a client's requests go. Called by the engine thread; must not block.
class RolloutSink {
 public:
  virtual ~RolloutSink() = default;
  virtual void OnToken(uint64_t request_id, const TokenOutput& token,
                       const v1::WeightVersion& version) = 0;
  virtual void OnFailure(uint64_t request_id, const absl::Status& status) = 0;
};

struct EngineThreadOptions {
  int64_t max_sequences = 512;
  int64_t max_batch_tokens = 2048;
  int64_t kv_cache_mib = 1024;
  int threads = 0;  // of matrix products; 0: one a core
};

// Thread-safe.
class EngineThread {
 public:
  explicit EngineThread(const EngineThreadOptions& options);
  ~EngineThread();

  // Queues a request; a refusal arrives at the sink. `request.id` is the client's; ids of different
  // sinks may be equal.
  void Submit(const std::shared_ptr<RolloutSink>& sink, RolloutRequest request);
  // Cancels one request of a sink, which hears OnFailure(Cancelled) when the request was still
  // live.
  void Cancel(const RolloutSink* sink, uint64_t request_id);
  // Cancels everything of a sink silently; afterwards the sink is not called any more.
  void Detach(const RolloutSink* sink);

  // Waits until no request of the sink is live, or `give_up` (asked ten times a second) says so.
  void WaitIdle(const RolloutSink* sink, const std::function<bool()>& give_up);

  // Replaces the model between two steps; requests in progress fail with Aborted.
  void SetModel(std::unique_ptr<Transformer> model, const std::string& path,
                const v1::WeightVersion& version);
  // Replaces the parameters between two steps; running sequences go on with the keys and values
  // that they have. `parameters` is in the model's ParameterLayout. FailedPrecondition when the
  // version is not above the one held or there is no model.
  absl::Status SetParameters(const std::vector<float>& parameters,
                             const v1::WeightVersion& version);
  // FailedPrecondition, AlreadyExists or OK: whether `version` may follow the one held.
  absl::Status CheckVersion(const v1::WeightVersion& version) const;

  v1::RolloutStatus Status() const;
  // Calls `f` with the model (null when there is none) while no step runs.
  void WithModel(const std::function<void(const Transformer*)>& f);

 private:
  struct Live {
    std::shared_ptr<RolloutSink> sink;
    uint64_t client_id;
    int64_t unfinished;
  };

  void Run();
  // Runs `f` on the engine thread between two steps and waits for it.
  void Execute(const std::function<void()>& f);
  void UpdateStatus();

  EngineThreadOptions options_;
  // Engine thread only.
  std::unique_ptr<Transformer> model_;
  std::unique_ptr<TransformerRunner> runner_;
  std::unique_ptr<Engine> engine_;
  std::map<uint64_t, Live> live_;  // by engine request id
  uint64_t next_id_ = 1;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::function<void()>> commands_;
  bool stop_ = false;
  v1::RolloutStatus status_;
  std::thread thread_;
};

}  // namespace e3

#endif  // E3_ROLLOUT_SERVER_SERVICE_ENGINE_THREAD_H_
