#include "learner/service/rollout_pool.h"

#include <xxhash.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <thread>

#include "absl/strings/str_cat.h"
#include "services/runtime/log.h"
#include "services/runtime/metrics.h"
#include "services/runtime/rpc.h"
#include "services/runtime/status_macros.h"
#include "services/runtime/weight_version.h"

namespace e3 {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kGiveUpAfter = std::chrono::minutes(5);
constexpr auto kStallTimeout = std::chrono::minutes(5);
constexpr int64_t kSamplesARequest = 64;
constexpr int64_t kSamplesInFlight = 1024;  // a server: enough to fill its batch and its queue
constexpr size_t kChunkBytes = 1 << 20;

std::chrono::system_clock::time_point In(std::chrono::seconds seconds) {
  return std::chrono::system_clock::now() + seconds;
}

// What is asked of a server at once: all samples of a task, or one sample that goes on.
struct WorkItem {
  size_t task;
  uint32_t first_sample;
  uint32_t n;
};

void Append(const v1::GenerateReply::Chunk& chunk, v1::Rollout* rollout) {
  for (uint32_t position : chunk.forced())
    rollout->add_forced(static_cast<uint32_t>(rollout->token_ids_size()) + position);
  rollout->mutable_token_ids()->MergeFrom(chunk.token_ids());
  rollout->mutable_logprobs()->MergeFrom(chunk.logprobs());
  rollout->mutable_entropies()->MergeFrom(chunk.entropies());
  for (const auto& span : chunk.versions()) {
    auto* spans = rollout->mutable_versions();
    if (!spans->empty() && SameVersion(spans->rbegin()->version(), span.version())) {
      spans->rbegin()->set_tokens(spans->rbegin()->tokens() + span.tokens());
    } else {
      *spans->Add() = span;
    }
  }
  // A rollout that a change of weights cut goes on later.
  if (chunk.finish_reason() != v1::FINISH_REASON_CUT)
    rollout->set_finish_reason(chunk.finish_reason());
}

}  // namespace

// The state that the server threads of one Generate share.
struct RolloutPool::Generation {
  const std::vector<RolloutTask>& tasks;
  const RolloutOptions& options;
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<WorkItem> queue;
  std::vector<std::vector<v1::Rollout>> rollouts;
  int64_t unfinished = 0;
  absl::Status error;  // final: the generation is over
  bool stopped = false;
  std::string last_error;                                     // of any server
  std::map<grpc::ClientContext*, Clock::time_point> streams;  // when each last heard of its server
  Clock::time_point last_progress = Clock::now();

  bool over() const { return unfinished == 0 || stopped || !error.ok(); }
};

RolloutPool::RolloutPool(std::vector<std::string> addresses) {
  for (std::string& address : addresses) {
    auto channel = Connect(address);
    servers_.push_back(
        {std::move(address), v1::Rollouts::NewStub(channel), v1::Weights::NewStub(channel)});
  }
}

absl::Status RolloutPool::Publish(const PublishedWeights& weights) {
  weights_ = weights;
  manifest_.Clear();
  *manifest_.mutable_version() = weights.version;
  for (const ParameterSlot& slot : weights.layout->slots()) {
    v1::Manifest::Tensor* tensor = manifest_.add_tensors();
    tensor->set_name(slot.name);
    for (int64_t d : slot.shape) tensor->add_shape(d);
    tensor->set_checksum(XXH3_64bits(weights.parameters + slot.offset,
                                     static_cast<size_t>(slot.size) * sizeof(float)));
  }
  std::vector<absl::Status> statuses(servers_.size());
  std::vector<std::thread> threads;
  for (size_t i = 0; i < servers_.size(); ++i) {
    threads.emplace_back([&, i] { statuses[i] = EnsureWeights(servers_[i]); });
  }
  for (std::thread& thread : threads) thread.join();
  absl::Status last;
  for (size_t i = 0; i < servers_.size(); ++i) {
    if (statuses[i].ok()) return absl::OkStatus();
    last = absl::Status(statuses[i].code(), absl::StrCat("rollout server ", servers_[i].address,
                                                         ": ", statuses[i].message()));
  }
  return last;
}

absl::Status RolloutPool::EnsureWeights(Server& server) {
  v1::RolloutStatus status;
  {
    grpc::ClientContext context;
    context.set_deadline(In(std::chrono::seconds(5)));
    E3_RETURN_IF_ERROR(FromGrpc(server.rollouts->GetStatus(&context, {}, &status)));
  }
  if (SameVersion(status.weights(), weights_.version)) return absl::OkStatus();
  if (status.model().empty() || status.weights().job() != weights_.version.job()) {
    grpc::ClientContext context;
    context.set_deadline(In(std::chrono::seconds(600)));
    v1::LoadModelRequest request;
    request.set_path(weights_.model_path);
    request.mutable_version()->set_job(weights_.version.job());
    request.mutable_version()->set_term(weights_.version.term());
    v1::LoadModelReply reply;
    E3_RETURN_IF_ERROR(FromGrpc(server.weights->LoadModel(&context, request, &reply)));
  }
  absl::Status uploaded = Upload(server);
  return absl::IsAlreadyExists(uploaded) ? absl::OkStatus() : uploaded;
}

absl::Status RolloutPool::Upload(Server& server) {
  grpc::ClientContext context;
  context.set_deadline(In(std::chrono::seconds(600)));
  v1::UploadReply reply;
  auto writer = server.weights->Upload(&context, &reply);
  v1::UploadRequest part;
  *part.mutable_manifest() = manifest_;
  bool open = writer->Write(part);
  const char* bytes = reinterpret_cast<const char*>(weights_.parameters);
  const size_t total = static_cast<size_t>(weights_.layout->size()) * sizeof(float);
  for (size_t offset = 0; open && offset < total; offset += kChunkBytes) {
    part.mutable_chunk()->set_offset(offset);
    part.mutable_chunk()->set_data(bytes + offset, std::min(kChunkBytes, total - offset));
    open = writer->Write(part);
  }
  writer->WritesDone();
  return FromGrpc(writer->Finish());
}

absl::Status RolloutPool::Work(Server& server, Generation& g) {
  E3_RETURN_IF_ERROR(EnsureWeights(server));
  grpc::ClientContext context;
  auto stream = server.rollouts->Generate(&context);
  {
    std::lock_guard<std::mutex> lock(g.mutex);
    g.streams[&context] = Clock::now();
  }
  std::map<uint64_t, WorkItem> in_flight;
  std::map<uint64_t, uint32_t> remaining;  // samples of a request that have not finished
  uint64_t next_id = 1;
  int64_t samples = 0;
  bool open = true;
  absl::Status failure;

  while (open && failure.ok()) {
    // Take work while the server has room for it.
    std::vector<std::pair<uint64_t, WorkItem>> taken;
    {
      std::unique_lock<std::mutex> lock(g.mutex);
      if (in_flight.empty()) g.changed.wait(lock, [&] { return g.over() || !g.queue.empty(); });
      if (g.over()) break;
      while (!g.queue.empty() && samples < kSamplesInFlight) {
        taken.emplace_back(next_id++, g.queue.front());
        samples += g.queue.front().n;
        g.queue.pop_front();
      }
      g.streams[&context] = Clock::now();
    }
    for (const auto& [id, item] : taken) {
      in_flight[id] = item;
      remaining[id] = item.n;
      const RolloutTask& task = g.tasks[item.task];
      v1::GenerateRequest request;
      v1::GenerateRequest::Start* start = request.mutable_start();
      start->set_request_id(id);
      start->mutable_prompt_token_ids()->Add(task.prompt.begin(), task.prompt.end());
      start->set_n(item.n);
      start->set_budget(static_cast<uint32_t>(g.options.budget));
      *start->mutable_sampling() = g.options.sampling;
      start->set_seed(task.seed);
      start->set_first_sample(item.first_sample);
      if (item.n == 1) {
        std::lock_guard<std::mutex> lock(g.mutex);
        const v1::Rollout& rollout = g.rollouts[item.task][item.first_sample];
        *start->mutable_response_prefix() = rollout.token_ids();
        *start->mutable_prefix_forced() = rollout.forced();
      }
      open = open && stream->Write(request);
    }
    if (!open) break;

    v1::GenerateReply reply;
    open = stream->Read(&reply);
    if (!open) break;
    std::lock_guard<std::mutex> lock(g.mutex);
    g.streams[&context] = Clock::now();
    if (reply.has_failure()) {
      absl::Status status(static_cast<absl::StatusCode>(reply.failure().code()),
                          reply.failure().message());
      if (absl::IsInvalidArgument(status) || absl::IsOutOfRange(status)) {
        g.error = status;
        g.changed.notify_all();
      }
      failure = status;
    } else if (reply.has_chunk() && in_flight.count(reply.chunk().request_id()) > 0) {
      const WorkItem& item = in_flight[reply.chunk().request_id()];
      if (reply.chunk().sample() >= item.n) {
        failure = absl::InternalError("the server sent a sample that was not asked for");
        continue;
      }
      // A server that came back with other weights answers for another policy: nothing of it
      // counts.
      for (const auto& span : reply.chunk().versions()) {
        if (!SameVersion(span.version(), weights_.version))
          failure = absl::AbortedError("the server generated with other weights");
      }
      v1::Rollout& rollout = g.rollouts[item.task][item.first_sample + reply.chunk().sample()];
      if (!failure.ok() || rollout.finish_reason() != v1::FINISH_REASON_UNSPECIFIED) continue;
      g.last_progress = Clock::now();
      Append(reply.chunk(), &rollout);
      if (reply.chunk().finish_reason() != v1::FINISH_REASON_UNSPECIFIED) {
        --samples;
        if (reply.chunk().finish_reason() == v1::FINISH_REASON_CUT) {
          g.queue.push_back({item.task, item.first_sample + reply.chunk().sample(), 1});
        } else if (--g.unfinished == 0) {
          g.changed.notify_all();
        }
        if (--remaining[reply.chunk().request_id()] == 0)
          in_flight.erase(reply.chunk().request_id());
      }
    }
  }

  // What has not finished goes back: sample by sample, from the tokens that are here.
  bool over;
  {
    std::lock_guard<std::mutex> lock(g.mutex);
    g.streams.erase(&context);
    for (const auto& [id, item] : in_flight) {
      for (uint32_t s = item.first_sample; s < item.first_sample + item.n; ++s) {
        if (g.rollouts[item.task][s].finish_reason() == v1::FINISH_REASON_UNSPECIFIED)
          g.queue.push_back({item.task, s, 1});
      }
    }
    over = g.over();
    g.changed.notify_all();
  }
  if (over || !failure.ok()) context.TryCancel();
  grpc::Status finished = stream->Finish();
  if (!failure.ok()) return failure;
  return over ? absl::OkStatus() : FromGrpc(finished);
}

absl::StatusOr<std::vector<std::vector<v1::Rollout>>> RolloutPool::Generate(
    const std::vector<RolloutTask>& tasks, const RolloutOptions& options,
    const std::function<bool()>& stop) {
  Generation g{tasks, options};
  for (size_t i = 0; i < tasks.size(); ++i) {
    // Samples of a prompt share its blocks within a request; a request is never more than a server
    // runs at once.
    for (int64_t first = 0; first < tasks[i].n; first += kSamplesARequest) {
      g.queue.push_back({i, static_cast<uint32_t>(first),
                         static_cast<uint32_t>(std::min(kSamplesARequest, tasks[i].n - first))});
    }
    g.rollouts.emplace_back(static_cast<size_t>(tasks[i].n));
    g.unfinished += tasks[i].n;
  }
  std::vector<std::thread> threads;
  for (Server& server : servers_) {
    threads.emplace_back([&] {
      bool told = false;
      while (true) {
        absl::Status status = Work(server, g);
        std::unique_lock<std::mutex> lock(g.mutex);
        if (g.over()) return;
        if (!status.ok())
          g.last_error = absl::StrCat("rollout server ", server.address, ": ", status.message());
        if (!status.ok() && !told) {
          Log("warning", "rollout server away; its rollouts go on from their last token",
              {{"server", server.address}, {"error", std::string(status.message())}});
          CounterMetric("e3_learner_rollout_server_failures_total",
                        "Streams to rollout servers that broke")
              .Increment();
          told = true;
        }
        if (status.ok()) told = false;
        g.changed.wait_for(lock, std::chrono::milliseconds(300), [&] { return g.over(); });
        if (g.over()) return;
      }
    });
  }
  {
    std::unique_lock<std::mutex> lock(g.mutex);
    while (!g.over()) {
      g.changed.wait_for(lock, std::chrono::milliseconds(200));
      if (stop()) g.stopped = true;
      for (const auto& [context, heard] : g.streams) {
        if (g.stopped || Clock::now() - heard > kStallTimeout) context->TryCancel();
      }
      if (!g.over() && Clock::now() - g.last_progress > kGiveUpAfter) {
        g.error = absl::UnavailableError(
            absl::StrCat("no rollout server generated anything for five minutes; the last error: ",
                         g.last_error.empty() ? "none" : g.last_error));
      }
    }
    for (const auto& [context, heard] : g.streams) context->TryCancel();
    g.changed.notify_all();
  }
  for (std::thread& thread : threads) thread.join();
  if (!g.error.ok()) return g.error;
  if (g.stopped) return absl::CancelledError("stopped while generating");
  return std::move(g.rollouts);
}

}  // namespace e3
