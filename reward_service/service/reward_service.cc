#include "reward_service/service/reward_service.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>

#include "services/runtime/metrics.h"

namespace e3 {
namespace {

// What the threads of one stream share. Lives until the last of them is done.
struct StreamState {
  std::mutex mutex;
  std::condition_variable changed;
  int in_flight = 0;  // read, and not yet written
  std::deque<v1::ScoreReply> replies;
  grpc::ServerContext* context = nullptr;  // null once the stream is over
  bool reading = true;
  bool broken = false;  // the client is gone: nothing more is judged or written
};

}  // namespace

RewardService::RewardService(const RewardServiceOptions& options)
    : options_(options),
      scorer_(options.limits, options.cache_entries),
      workers_(options.threads > 0
                   ? options.threads
                   : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()))) {}

v1::ScoreReply RewardService::Judge(const v1::ScoreRequest& request) {
  auto begin = std::chrono::steady_clock::now();
  v1::ScoreReply reply = scorer_.Score(request);
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const std::string task = TaskName(request);
  CounterMetric("e3_reward_verdicts_total", "Verdicts by task and the rule that decided",
                {{"task", task}, {"rule", reply.error_code() != 0 ? "error" : reply.rule()}})
      .Increment();
  CounterMetric("e3_reward_verifications_total",
                "Verification phrases counted in responses (App. N)", {{"task", task}})
      .Increment(reply.trace().verifications());
  HistogramMetric("e3_reward_seconds", "Time of a verdict",
                  {1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 0.1, 1}, {{"task", task}})
      .Observe(seconds);
  if (reply.error_code() == static_cast<int>(absl::StatusCode::kDeadlineExceeded)) {
    CounterMetric("e3_reward_timeouts_total", "Requests without a verdict within their time",
                  {{"task", task}})
        .Increment();
  }
  return reply;
}

grpc::Status RewardService::Score(
    grpc::ServerContext* context,
    grpc::ServerReaderWriter<v1::ScoreReply, v1::ScoreRequest>* stream) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    streams_.insert(context);
  }
  auto state = std::make_shared<StreamState>();
  state->context = context;
  // A first write that waits for others (see below) would keep the stream's beginning back with it,
  // and itself wait until that has left: for nothing, up to the next ping.
  stream->SendInitialMetadata();
  std::thread writer([this, state, stream] {
    std::unique_lock<std::mutex> lock(state->mutex);
    while (true) {
      state->changed.wait(lock, [&] {
        return !state->replies.empty() || (!state->reading && state->in_flight == 0) ||
               state->broken;
      });
      if (state->replies.empty() || state->broken) return;
      v1::ScoreReply reply = std::move(state->replies.front());
      state->replies.pop_front();
      // Replies that wait go into one write to the network.
      grpc::WriteOptions options;
      if (!state->replies.empty()) options.set_buffer_hint();
      lock.unlock();
      const bool written = stream->Write(reply, options);
      lock.lock();
      --state->in_flight;
      state->broken = state->broken || !written;
      state->changed.notify_all();
    }
  });

  prometheus::Gauge& waiting =
      GaugeMetric("e3_reward_in_flight", "Requests read and not yet judged");
  while (true) {
    {
      std::unique_lock<std::mutex> lock(state->mutex);
      state->changed.wait(lock,
                          [&] { return state->in_flight < options_.in_flight || state->broken; });
      if (state->broken) break;
    }
    auto request = std::make_shared<v1::ScoreRequest>();
    if (!stream->Read(request.get())) break;
    {
      std::lock_guard<std::mutex> lock(state->mutex);
      ++state->in_flight;
    }
    waiting.Increment();
    workers_.Submit([this, state, request, &waiting] {
      bool wanted;
      {
        std::lock_guard<std::mutex> lock(state->mutex);
        // Past its deadline, or cancelled: nobody waits for the verdict.
        // (Before the client has sent its last request, reading tells.)
        if (!state->reading && state->context != nullptr && state->context->IsCancelled())
          state->broken = true;
        wanted = !state->broken;
      }
      v1::ScoreReply reply;
      if (wanted) reply = Judge(*request);
      waiting.Decrement();
      std::lock_guard<std::mutex> lock(state->mutex);
      state->replies.push_back(std::move(reply));
      state->changed.notify_all();
    });
  }
  {
    std::lock_guard<std::mutex> lock(state->mutex);
    state->reading = false;
    // Past its deadline, or cancelled: what is queued is not judged any more.
    state->broken = state->broken || context->IsCancelled();
  }
  state->changed.notify_all();
  writer.join();
  {
    std::lock_guard<std::mutex> lock(state->mutex);
    state->context = nullptr;
    state->broken = true;
  }
  const VerdictCache::Counts cache = scorer_.cache_counts();
  GaugeMetric("e3_reward_cache_hits", "Verdicts found in the cache")
      .Set(static_cast<double>(cache.hits));
  GaugeMetric("e3_reward_cache_misses", "Verdicts that had to be made")
      .Set(static_cast<double>(cache.misses));
  std::lock_guard<std::mutex> lock(mutex_);
  streams_.erase(context);
  return grpc::Status::OK;
}

void RewardService::Drain() {
  std::lock_guard<std::mutex> lock(mutex_);
  for (grpc::ServerContext* context : streams_) context->TryCancel();
}

}  // namespace e3
