#include "rollout_server/service/engine_thread.h"

#include <ATen/Parallel.h>

#include <chrono>
#include <cstring>
#include <future>

#include "absl/strings/str_cat.h"
#include "model/transformer.h"
#include "services/runtime/metrics.h"

namespace e3 {
namespace {

double Seconds(std::chrono::steady_clock::time_point since) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - since).count();
}

std::string VersionName(const v1::WeightVersion& v) {
  return absl::StrCat(v.job(), " epoch ", v.epoch(), " step ", v.step());
}

}  // namespace

EngineThread::EngineThread(const EngineThreadOptions& options) : options_(options) {
  thread_ = std::thread([this] { Run(); });
}

EngineThread::~EngineThread() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void EngineThread::Execute(const std::function<void()>& f) {
  auto done = std::make_shared<std::promise<void>>();
  {
    std::lock_guard<std::mutex> lock(mutex_);
    commands_.push_back([f, done] {
      f();
      done->set_value();
    });
  }
  wake_.notify_all();
  done->get_future().wait();
}

void EngineThread::Submit(const std::shared_ptr<RolloutSink>& sink, RolloutRequest request) {
  std::lock_guard<std::mutex> lock(mutex_);
  commands_.push_back([this, sink, request = std::move(request)]() mutable {
    const uint64_t client_id = request.id;
    if (engine_ == nullptr) {
      sink->OnFailure(client_id,
                      absl::FailedPreconditionError(
                          "the server has no model yet (Weights.LoadModel gives it one)"));
      return;
    }
    for (const auto& [id, live] : live_) {
      if (live.sink == sink && live.client_id == client_id) {
        sink->OnFailure(
            client_id, absl::InvalidArgumentError(absl::StrCat("request_id ", client_id,
                                                               " is live on this stream already")));
        return;
      }
    }
    request.id = next_id_++;
    absl::Status status = engine_->Add(request);
    if (!status.ok()) {
      sink->OnFailure(client_id, status);
      return;
    }
    live_[request.id] = {sink, client_id, request.n};
  });
  wake_.notify_all();
}

void EngineThread::Cancel(const RolloutSink* sink, uint64_t request_id) {
  std::lock_guard<std::mutex> lock(mutex_);
  commands_.push_back([this, sink, request_id] {
    for (auto it = live_.begin(); it != live_.end(); ++it) {
      if (it->second.sink.get() != sink || it->second.client_id != request_id) continue;
      engine_->Cancel(it->first);
      it->second.sink->OnFailure(request_id, absl::CancelledError("cancelled by the client"));
      live_.erase(it);
      return;
    }
  });
  wake_.notify_all();
}

void EngineThread::Detach(const RolloutSink* sink) {
  Execute([this, sink] {
    for (auto it = live_.begin(); it != live_.end();) {
      if (it->second.sink.get() == sink) {
        engine_->Cancel(it->first);
        it = live_.erase(it);
      } else {
        ++it;
      }
    }
  });
}

void EngineThread::WaitIdle(const RolloutSink* sink, const std::function<bool()>& give_up) {
  for (bool live = true; live && !give_up();) {
    Execute([&] {
      live = false;
      for (const auto& [id, request] : live_) live = live || request.sink.get() == sink;
    });
    if (live) std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

void EngineThread::SetModel(std::unique_ptr<Transformer> model, const std::string& path,
                            const v1::WeightVersion& version) {
  Execute([&] {
    for (auto& [id, live] : live_)
      live.sink->OnFailure(live.client_id, absl::AbortedError("the server loaded another model"));
    live_.clear();
    engine_.reset();
    runner_.reset();
    model_ = std::move(model);
    EngineLimits limits;
    limits.scheduler = {options_.max_sequences, options_.max_batch_tokens};
    limits.num_blocks = static_cast<int32_t>((options_.kv_cache_mib << 20) /
                                             TransformerRunner::BlockBytes(*model_));
    limits.context_length = model_->config().context_length;
    limits.eos_token_ids = model_->config().eos_token_ids;
    runner_ = std::make_unique<TransformerRunner>(model_.get(), limits.num_blocks);
    engine_ = std::make_unique<Engine>(limits, runner_.get());
    std::lock_guard<std::mutex> lock(mutex_);
    *status_.mutable_weights() = version;
    status_.set_model(path);
    status_.set_context_length(static_cast<uint64_t>(limits.context_length));
    status_.set_kv_blocks_total(static_cast<uint32_t>(limits.num_blocks));
  });
}

absl::Status EngineThread::CheckVersion(const v1::WeightVersion& version) const {
  std::lock_guard<std::mutex> lock(mutex_);
  const v1::WeightVersion& held = status_.weights();
  if (status_.model().empty())
    return absl::FailedPreconditionError("the server has no model yet (call LoadModel first)");
  // Another job takes over: at most one has the pool, which the job service sees to.
  if (held.job() != version.job()) return absl::OkStatus();
  auto order = [](const v1::WeightVersion& v) { return std::pair(v.epoch(), v.step()); };
  if (order(version) == order(held))
    return absl::AlreadyExistsError(absl::StrCat("already serving ", VersionName(held)));
  if (order(version) < order(held)) {
    return absl::FailedPreconditionError(
        absl::StrCat("serving ", VersionName(held), ", which is above ", VersionName(version)));
  }
  return absl::OkStatus();
}

absl::Status EngineThread::SetParameters(const std::vector<float>& parameters,
                                         const v1::WeightVersion& version) {
  absl::Status status;
  Execute([&] {
    status = CheckVersion(version);
    if (!status.ok()) return;
    if (static_cast<int64_t>(parameters.size()) != model_->layout().size()) {
      status = absl::AbortedError("the model changed during the upload");
      return;
    }
    model_->UpdateParameters(
        [&](float* to) { memcpy(to, parameters.data(), parameters.size() * sizeof(float)); });
    std::lock_guard<std::mutex> lock(mutex_);
    *status_.mutable_weights() = version;
  });
  return status;
}

v1::RolloutStatus EngineThread::Status() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return status_;
}

void EngineThread::WithModel(const std::function<void(const Transformer*)>& f) {
  Execute([&] { f(model_.get()); });
}

void EngineThread::UpdateStatus() {
  static prometheus::Gauge& running =
      GaugeMetric("e3_rollout_running", "Sequences in the running batch");
  static prometheus::Gauge& waiting =
      GaugeMetric("e3_rollout_waiting", "Sequences waiting for KV blocks or a place");
  static prometheus::Gauge& used =
      GaugeMetric("e3_rollout_kv_blocks_used", "KV cache blocks in use");
  static prometheus::Gauge& total = GaugeMetric("e3_rollout_kv_blocks", "KV cache blocks");
  static prometheus::Gauge& step =
      GaugeMetric("e3_rollout_weight_step", "Optimizer step of the weights that are served");
  const Scheduler& scheduler = engine_->scheduler();
  std::lock_guard<std::mutex> lock(mutex_);
  status_.set_running(static_cast<uint32_t>(scheduler.num_running()));
  status_.set_waiting(static_cast<uint32_t>(scheduler.num_waiting()));
  status_.set_kv_blocks_used(
      static_cast<uint32_t>(scheduler.blocks().num_blocks() - scheduler.blocks().num_free()));
  running.Set(status_.running());
  waiting.Set(status_.waiting());
  used.Set(status_.kv_blocks_used());
  total.Set(status_.kv_blocks_total());
  step.Set(static_cast<double>(status_.weights().step()));
}

void EngineThread::Run() {
  at::set_num_threads(options_.threads > 0
                          ? options_.threads
                          : static_cast<int>(std::max(1u, std::thread::hardware_concurrency())));
  prometheus::Counter& decoded = CounterMetric("e3_rollout_tokens_total", "Tokens generated");
  prometheus::Counter& prefilled =
      CounterMetric("e3_rollout_prefill_tokens_total", "Prompt tokens computed");
  prometheus::Counter& preempted =
      CounterMetric("e3_rollout_preemptions_total", "Sequences preempted for lack of KV blocks");
  prometheus::Counter& finished = CounterMetric("e3_rollout_finished_total", "Samples finished");
  prometheus::Histogram& step_seconds =
      HistogramMetric("e3_rollout_step_seconds", "Duration of engine steps",
                      {0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5});
  uint64_t prefill_before = 0, preempted_before = 0;
  while (true) {
    std::vector<std::function<void()>> commands;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [&] {
        return stop_ || !commands_.empty() || (engine_ != nullptr && !engine_->idle());
      });
      if (stop_) break;
      commands.swap(commands_);
    }
    for (const auto& command : commands) command();
    if (engine_ == nullptr) continue;
    if (engine_->idle()) {
      UpdateStatus();
      continue;
    }
    auto begin = std::chrono::steady_clock::now();
    std::vector<TokenOutput> outputs = engine_->Step();
    step_seconds.Observe(Seconds(begin));
    v1::WeightVersion version = Status().weights();
    for (const TokenOutput& output : outputs) {
      auto it = live_.find(output.request_id);
      if (it == live_.end()) continue;
      it->second.sink->OnToken(it->second.client_id, output, version);
      if (output.finish == Finish::kNone) continue;
      finished.Increment();
      if (--it->second.unfinished == 0) live_.erase(it);
    }
    decoded.Increment(static_cast<double>(outputs.size()));
    if (engine_->counters().prefill_tokens < prefill_before)
      prefill_before = preempted_before = 0;  // a new engine
    prefilled.Increment(static_cast<double>(engine_->counters().prefill_tokens - prefill_before));
    prefill_before = engine_->counters().prefill_tokens;
    preempted.Increment(
        static_cast<double>(engine_->scheduler().num_preempted() - preempted_before));
    preempted_before = engine_->scheduler().num_preempted();
    {
      std::lock_guard<std::mutex> lock(mutex_);
      status_.set_tokens_generated(status_.tokens_generated() + outputs.size());
    }
    UpdateStatus();
  }
  // Commands that still wait must not wait for ever.
  for (const auto& command : commands_) command();
}

}  // namespace e3
