#include "rollout_server/service/engine_thread.h"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <future>
#include <utility>

#include "absl/strings/str_cat.h"

namespace e3 {
namespace {

double Seconds(Clock::time_point since) {
  return std::chrono::duration<double>(Clock::now() - since).count();
}

std::string VersionName(const v1::WeightVersion& v) {
  return absl::StrCat(v.job(), " epoch ", v.epoch(), " step ", v.step());
}

constexpr std::chrono::milliseconds kPoll{100};

}  // namespace

uint64_t RolloutSink::NewAccount() {
  static std::atomic<uint64_t> last{0};
  return ++last;
}

// New weights on their way to the model.
struct EngineThread::Switch {
  std::vector<float> parameters;
  v1::WeightVersion version;
  v1::RunningPolicy running;
  std::promise<absl::Status> done;
};

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

// --- commands ---

void EngineThread::Post(std::function<void()> f) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    commands_.push_back(std::move(f));
  }
  wake_.notify_all();
}

void EngineThread::Execute(const std::function<void()>& f) {
  auto done = std::make_shared<std::promise<void>>();
  Post([f, done] {
    f();
    done->set_value();
  });
  done->get_future().wait();
}

std::map<uint64_t, EngineThread::Client>::iterator EngineThread::Find(const RolloutSink* sink) {
  return std::find_if(clients_.begin(), clients_.end(),
                      [&](const auto& entry) { return entry.second.sink.get() == sink; });
}

void EngineThread::Submit(const std::shared_ptr<RolloutSink>& sink,
                          std::vector<RolloutRequest> requests) {
  Post([this, sink, requests = std::move(requests)]() mutable {
    for (RolloutRequest& request : requests) Add(sink, std::move(request));
  });
}

void EngineThread::Add(const std::shared_ptr<RolloutSink>& sink, RolloutRequest request) {
  const uint64_t client_id = request.id;
  if (engine_ == nullptr) {
    sink->OnFailure(client_id, absl::FailedPreconditionError(
                                   "the server has no model yet (Weights.LoadModel gives it one)"));
    return;
  }
  auto client = Find(sink.get());
  if (client != clients_.end() && client->second.requests.count(client_id) > 0) {
    sink->OnFailure(client_id, absl::InvalidArgumentError(absl::StrCat(
                                   "request_id ", client_id, " is live on this stream already")));
    return;
  }
  const uint64_t client_number = client == clients_.end() ? next_client_ : client->first;
  request.id = next_id_;
  request.client = client_number;
  request.account = sink->account();
  const int64_t n = request.n;
  if (absl::Status status = engine_->Add(std::move(request)); !status.ok()) {
    sink->OnFailure(client_id, status);
    return;
  }
  if (client == clients_.end()) client = clients_.insert({next_client_++, {sink, {}}}).first;
  client->second.requests[client_id] = next_id_;
  live_[next_id_++] = {client_number, client_id, n};
}

void EngineThread::End(uint64_t engine_id) {
  const Live live = live_.at(engine_id);
  live_.erase(engine_id);
  Client& client = clients_.at(live.client);
  client.requests.erase(live.client_id);
  if (!client.requests.empty()) return;
  engine_->SetPaused(live.client, false);
  clients_.erase(live.client);
}

void EngineThread::Cancel(const RolloutSink* sink, uint64_t request_id) {
  Post([this, sink, request_id] {
    auto client = Find(sink);
    if (client == clients_.end() || client->second.requests.count(request_id) == 0) return;
    const uint64_t engine_id = client->second.requests[request_id];
    std::shared_ptr<RolloutSink> kept = client->second.sink;
    engine_->Cancel(engine_id);
    End(engine_id);
    kept->OnFailure(request_id, absl::CancelledError("cancelled by the client"));
  });
}

void EngineThread::Detach(const RolloutSink* sink) {
  Execute([this, sink] {
    auto client = Find(sink);
    if (client == clients_.end()) return;
    const std::map<uint64_t, uint64_t> requests = client->second.requests;
    for (const auto& [client_id, engine_id] : requests) {
      engine_->Cancel(engine_id);
      End(engine_id);
    }
  });
}

void EngineThread::Resume(const RolloutSink* sink) {
  Post([this, sink] {
    auto client = Find(sink);
    if (client != clients_.end()) engine_->SetPaused(client->first, false);
  });
}

void EngineThread::WaitIdle(const RolloutSink* sink, const std::function<bool()>& give_up) {
  for (bool live = true; live && !give_up();) {
    Execute([&] { live = Find(sink) != clients_.end(); });
    if (live) std::this_thread::sleep_for(kPoll);
  }
}

// --- weights ---

absl::Status EngineThread::SetModel(std::unique_ptr<ServedModel> model, const std::string& path,
                                    const v1::WeightVersion& version) {
  absl::Status status;
  Execute([&] {
    status = CheckTerm(version);
    if (!status.ok()) return;
    for (const auto& [id, live] : live_) {
      clients_.at(live.client)
          .sink->OnFailure(live.client_id, absl::AbortedError("the server loaded another model"));
    }
    live_.clear();
    clients_.clear();
    if (switch_ != nullptr)
      switch_->done.set_value(absl::AbortedError("the server loaded another model"));
    switch_.reset();
    engine_.reset();
    model_ = std::move(model);
    EngineLimits limits;
    limits.scheduler = options_.scheduler;
    limits.num_blocks = model_->num_blocks();
    limits.context_length = model_->context_length();
    limits.eos_token_ids = model_->eos_token_ids();
    if (std::shared_ptr<const PromptEncoder> encoder = model_->encoder()) {
      limits.decode = [encoder](const std::vector<uint32_t>& tokens) {
        return encoder->tokenizer()
            .Decode(tokens, /*skip_special_tokens=*/false)
            .value_or(std::string());
      };
    }
    engine_ = std::make_unique<Engine>(limits, &model_->runner());
    metrics_ = std::make_unique<EngineMetrics>();
    std::lock_guard<std::mutex> lock(mutex_);
    *status_.mutable_weights() = version;
    status_.set_model(path);
    status_.set_context_length(static_cast<uint64_t>(limits.context_length));
    status_.set_kv_blocks_total(static_cast<uint32_t>(limits.num_blocks));
    encoder_ = model_->encoder();
    eos_token_ids_ = limits.eos_token_ids;
  });
  return status;
}

absl::Status EngineThread::CheckTerm(const v1::WeightVersion& version) const {
  std::lock_guard<std::mutex> lock(mutex_);
  const v1::WeightVersion& held = status_.weights();
  if (version.term() >= held.term()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("job ", held.job(), " has this server, with term ", held.term(), "; ",
                   VersionName(version), " is of term ", version.term(), ", which is over"));
}

absl::Status EngineThread::CheckVersion(const v1::WeightVersion& version) const {
  if (absl::Status status = CheckTerm(version); !status.ok()) return status;
  std::lock_guard<std::mutex> lock(mutex_);
  const v1::WeightVersion& held = status_.weights();
  if (status_.model().empty())
    return absl::FailedPreconditionError("the server has no model yet (call LoadModel first)");
  // Another job takes over. At most one has the pool: the job service sees to it, and the term
  // holds off the learner of one that had it.
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

absl::Status EngineThread::SetParameters(std::vector<float> parameters,
                                         const v1::WeightVersion& version,
                                         v1::RunningPolicy running,
                                         const std::function<bool()>& give_up) {
  auto change = std::make_shared<Switch>();
  change->parameters = std::move(parameters);
  change->version = version;
  change->running = running;
  std::future<absl::Status> done = change->done.get_future();
  Post([this, change] {
    absl::Status status = CheckVersion(change->version);
    if (status.ok() && switch_ != nullptr)
      status = absl::AbortedError("another switch of weights waits for running rollouts");
    if (status.ok()) {
      const ParameterSlot& last = model_->slots().back();
      if (static_cast<int64_t>(change->parameters.size()) != last.offset + last.size)
        status = absl::AbortedError("the model changed during the upload");
    }
    if (!status.ok()) {
      change->done.set_value(status);
      return;
    }
    switch_ = change;
    if (change->running == v1::RUNNING_POLICY_DRAIN) {
      engine_->SetDraining(true);
    } else if (change->running == v1::RUNNING_POLICY_CUT) {
      Deliver(engine_->Cut());
    }
  });
  while (done.wait_for(kPoll) != std::future_status::ready) {
    if (!give_up()) continue;
    Execute([&] {
      if (switch_ != change) return;  // it was made in this very moment
      change->done.set_value(absl::CancelledError("given up before the running rollouts ended"));
      switch_.reset();
      engine_->SetDraining(false);
    });
  }
  return done.get();
}

// Between two steps, when nothing stands in the way of the switch any more.
void EngineThread::MakeSwitch() {
  const Clock::time_point begin = Clock::now();
  model_->SetParameters(switch_->parameters);
  // What was not waited for in a drain must not go on with old keys and values.
  engine_->WeightsChanged(switch_->running == v1::RUNNING_POLICY_RECOMPUTE ||
                          switch_->running == v1::RUNNING_POLICY_DRAIN);
  engine_->SetDraining(false);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    *status_.mutable_weights() = switch_->version;
  }
  trace_.Mark(absl::StrCat("weights of step ", switch_->version.step()), begin, Seconds(begin));
  switch_->done.set_value(absl::OkStatus());
  switch_.reset();
}

// --- state ---

v1::RolloutStatus EngineThread::Status() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return status_;
}

std::vector<ParameterSlot> EngineThread::Slots() {
  std::vector<ParameterSlot> slots;
  Execute([&] {
    if (model_ != nullptr) slots = model_->slots();
  });
  return slots;
}

std::shared_ptr<const PromptEncoder> EngineThread::encoder() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return encoder_;
}

std::vector<uint32_t> EngineThread::eos_token_ids() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return eos_token_ids_;
}

void EngineThread::UpdateStatus() {
  const Scheduler& scheduler = engine_->scheduler();
  metrics_->OnState(scheduler);
  std::lock_guard<std::mutex> lock(mutex_);
  status_.set_running(static_cast<uint32_t>(scheduler.num_running()));
  status_.set_waiting(static_cast<uint32_t>(scheduler.num_waiting()));
  status_.set_preempted(static_cast<uint32_t>(scheduler.num_preempted()));
  status_.set_kv_blocks_used(
      static_cast<uint32_t>(scheduler.blocks().num_blocks() - scheduler.blocks().num_free()));
  static prometheus::Gauge& step =
      GaugeMetric("e3_rollout_weight_step", "Optimizer step of the weights that are served");
  step.Set(static_cast<double>(status_.weights().step()));
}

// --- the thread ---

void EngineThread::Deliver(std::vector<SampleOutput> outputs) {
  metrics_->OnOutputs(outputs);
  v1::WeightVersion version;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    version = status_.weights();
    uint64_t tokens = status_.tokens_generated();
    for (const SampleOutput& output : outputs) tokens += output.tokens.size();
    status_.set_tokens_generated(tokens);
  }
  std::vector<uint64_t> clients;
  for (SampleOutput& output : outputs) {
    const uint64_t id = output.request_id;
    if (live_.count(id) == 0) continue;  // failed with another sample
    Live& live = live_.at(id);
    if (output.finish == Finish::kBroken) {
      std::shared_ptr<RolloutSink> sink = clients_.at(live.client).sink;
      const uint64_t client_id = live.client_id;
      engine_->Cancel(id);
      End(id);
      sink->OnFailure(client_id,
                      absl::DataLossError(absl::StrCat("the model's logits are not finite with the "
                                                       "weights of ",
                                                       VersionName(version))));
      continue;
    }
    const bool ends = output.finish != Finish::kNone && --live.unfinished == 0;
    if (clients.empty() || clients.back() != live.client) clients.push_back(live.client);
    clients_.at(live.client).sink->OnOutput(live.client_id, std::move(output), version);
    if (ends) End(id);
  }
  for (uint64_t client : clients) {
    auto it = clients_.find(client);
    if (it != clients_.end() && it->second.sink->full()) engine_->SetPaused(client, true);
  }
}

void EngineThread::Run() {
  omp_set_num_threads(options_.threads > 0
                          ? options_.threads
                          : static_cast<int>(std::max(1u, std::thread::hardware_concurrency())));
  while (true) {
    std::vector<std::function<void()>> commands;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [&] {
        return stop_ || !commands_.empty() || switch_ != nullptr ||
               (engine_ != nullptr && !engine_->idle());
      });
      if (stop_) break;
      commands.swap(commands_);
    }
    for (const auto& command : commands) command();
    if (engine_ == nullptr) continue;
    if (switch_ != nullptr &&
        (switch_->running != v1::RUNNING_POLICY_DRAIN || engine_->drained())) {
      MakeSwitch();
    }
    if (!engine_->idle()) {
      std::vector<SampleOutput> outputs = engine_->Step();
      if (engine_->last_step().sequences > 0) {
        metrics_->OnStep(engine_->last_step());
        trace_.Add(engine_->last_step());
      }
      Deliver(std::move(outputs));
    }
    UpdateStatus();
  }
  // Commands that still wait must not wait for ever.
  std::vector<std::function<void()>> commands;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    commands.swap(commands_);
  }
  for (const auto& command : commands) command();
  if (switch_ != nullptr) switch_->done.set_value(absl::AbortedError("the server is stopping"));
}

}  // namespace e3
