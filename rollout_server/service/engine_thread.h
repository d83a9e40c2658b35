// The thread that owns the model and the engine, and the queues around it. Knows neither gRPC nor
// LibTorch.
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
#include "e3/v1/weights.pb.h"
#include "rollout_server/engine.h"
#include "rollout_server/served_model.h"
#include "rollout_server/service/engine_metrics.h"
#include "rollout_server/service/step_trace.h"

namespace e3 {

// Where the outputs of a client's requests go. Called by the engine thread; must not block.
class RolloutSink {
 public:
  // Accounts have equal shares of the engine, however many sinks they have.
  explicit RolloutSink(uint64_t account) : account_(account) {}
  virtual ~RolloutSink() = default;
  // An account of its own.
  static uint64_t NewAccount();
  uint64_t account() const { return account_; }

  virtual void OnOutput(uint64_t request_id, SampleOutput output,
                        const v1::WeightVersion& version) = 0;
  virtual void OnFailure(uint64_t request_id, const absl::Status& status) = 0;
  // Asked after outputs: whether the client is so far behind that its rollouts should pause until
  // EngineThread::Resume.
  virtual bool full() { return false; }

 private:
  const uint64_t account_;
};

struct EngineThreadOptions {
  SchedulerLimits scheduler;
  int threads = 0;  // of the model's arithmetic; 0: one a core
};

// Thread-safe.
class EngineThread {
 public:
  explicit EngineThread(const EngineThreadOptions& options);
  ~EngineThread();

  // Queues requests, all before the next step; refusals arrive at the sink. `id`s are the client's;
  // those of different sinks may be equal.
  void Submit(const std::shared_ptr<RolloutSink>& sink, std::vector<RolloutRequest> requests);
  // Cancels one request of a sink, which hears OnFailure(Cancelled) when the request was still
  // live.
  void Cancel(const RolloutSink* sink, uint64_t request_id);
  // Cancels everything of a sink silently; afterwards the sink is not called any more.
  void Detach(const RolloutSink* sink);
  // The sink is not full any more.
  void Resume(const RolloutSink* sink);
  // Waits until no request of the sink is live, or `give_up` (asked ten times a second) says so.
  void WaitIdle(const RolloutSink* sink, const std::function<bool()>& give_up);

  // Replaces the model between two steps; requests in progress fail with Aborted.
  // FailedPrecondition when `version` is of a lower term than the one held.
  absl::Status SetModel(std::unique_ptr<ServedModel> model, const std::string& path,
                        const v1::WeightVersion& version);
  // Replaces the weights between two steps; `running` says what becomes of rollouts in progress.
  // `parameters` are the model's slots one behind the other. Returns after the switch.
  // FailedPrecondition when the version is not above the one held, or there is no model; Aborted
  // when another switch or model came in between; Cancelled when `give_up` (asked ten times a
  // second) said so before the switch, whose weights then never serve.
  absl::Status SetParameters(std::vector<float> parameters, const v1::WeightVersion& version,
                             v1::RunningPolicy running, const std::function<bool()>& give_up);
  // FailedPrecondition, AlreadyExists or OK: whether `version` may follow the one held.
  absl::Status CheckVersion(const v1::WeightVersion& version) const;
  // FailedPrecondition when a later term has this server.
  absl::Status CheckTerm(const v1::WeightVersion& version) const;

  v1::RolloutStatus Status() const;
  // The slots of the model; empty when there is none.
  std::vector<ParameterSlot> Slots();
  // The model's tokenizer and template; null when there is none.
  std::shared_ptr<const PromptEncoder> encoder() const;
  std::vector<uint32_t> eos_token_ids() const;
  // The last steps in Chrome's trace event format.
  std::string TraceJson() const { return trace_.Json(); }

 private:
  struct Client {
    std::shared_ptr<RolloutSink> sink;
    std::map<uint64_t, uint64_t> requests;  // engine id by the client's id
  };
  struct Live {
    uint64_t client;
    uint64_t client_id;  // of the request
    int64_t unfinished;
  };
  struct Switch;

  void Run();
  // Runs `f` on the engine thread between two steps, and waits for it (Execute) or not (Post).
  void Execute(const std::function<void()>& f);
  void Post(std::function<void()> f);
  // The client of a sink; null when it has no live request.
  std::map<uint64_t, Client>::iterator Find(const RolloutSink* sink);
  void Deliver(std::vector<SampleOutput> outputs);
  void Add(const std::shared_ptr<RolloutSink>& sink, RolloutRequest request);
  void End(uint64_t engine_id);
  void MakeSwitch();
  void UpdateStatus();

  EngineThreadOptions options_;
  StepTrace trace_;
  // Engine thread only.
  std::unique_ptr<ServedModel> model_;
  std::unique_ptr<Engine> engine_;
  std::map<uint64_t, Client> clients_;
  std::map<uint64_t, Live> live_;  // by the engine's request id
  uint64_t next_id_ = 1, next_client_ = 1;
  std::shared_ptr<Switch> switch_;  // that waits for running rollouts
  std::unique_ptr<EngineMetrics> metrics_;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::function<void()>> commands_;
  bool stop_ = false;
  v1::RolloutStatus status_;
  std::shared_ptr<const PromptEncoder> encoder_;
  std::vector<uint32_t> eos_token_ids_;
  std::thread thread_;
};

}  // namespace e3

#endif  // E3_ROLLOUT_SERVER_SERVICE_ENGINE_THREAD_H_
