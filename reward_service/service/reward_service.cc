#include "reward_service/service/reward_service.h"

#include <chrono>

#include "reward_service/verifier.h"
#include "services/runtime/metrics.h"

namespace e3 {
namespace {

const char* TaskName(const v1::ScoreRequest& request) {
  switch (request.task_case()) {
    case v1::ScoreRequest::kMath:
      return "math";
    case v1::ScoreRequest::kCountdown:
      return "countdown";
    case v1::ScoreRequest::kMultiplication:
      return "multiplication";
    case v1::ScoreRequest::TASK_NOT_SET:
      break;
  }
  return "none";
}

}  // namespace

grpc::Status RewardService::Score(
    grpc::ServerContext* context,
    grpc::ServerReaderWriter<v1::ScoreReply, v1::ScoreRequest>* stream) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    streams_.insert(context);
  }
  v1::ScoreRequest request;
  while (stream->Read(&request)) {
    auto begin = std::chrono::steady_clock::now();
    v1::ScoreReply reply = e3::Score(request);
    double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
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
    if (!stream->Write(reply)) break;
  }
  std::lock_guard<std::mutex> lock(mutex_);
  streams_.erase(context);
  return grpc::Status::OK;
}

void RewardService::Drain() {
  std::lock_guard<std::mutex> lock(mutex_);
  for (grpc::ServerContext* context : streams_) context->TryCancel();
}

}  // namespace e3
