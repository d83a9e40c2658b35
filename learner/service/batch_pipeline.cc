#include "learner/service/batch_pipeline.h"

#include <exception>
#include <utility>

#include "absl/strings/str_cat.h"

namespace e3 {

BatchPipeline::BatchPipeline(uint64_t first, uint64_t last, int64_t staleness, Collect collect)
    : last_(last),
      staleness_(static_cast<uint64_t>(staleness)),
      collect_(std::move(collect)),
      next_collected_(first),
      next_taken_(first),
      published_(first - 1) {
  for (int64_t i = 0; i <= staleness; ++i) threads_.emplace_back([this] { Run(); });
}

BatchPipeline::~BatchPipeline() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopped_ = true;
    changed_.notify_all();
  }
  for (std::thread& thread : threads_) thread.join();
}

void BatchPipeline::AccountIdle() {
  const Clock::time_point now = Clock::now();
  if (collecting_ == 0) idle_.rollouts += std::chrono::duration<double>(now - accounted_).count();
  accounted_ = now;
}

void BatchPipeline::Run() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] {
      return stopped_ || next_collected_ > last_ || next_collected_ <= published_ + 1 + staleness_;
    });
    if (stopped_ || next_collected_ > last_) return;
    const uint64_t step = next_collected_++;
    AccountIdle();
    ++collecting_;
    lock.unlock();
    absl::StatusOr<v1::CollectedBatch> batch = absl::InternalError("not collected");
    try {
      batch = collect_(step, [this] {
        std::lock_guard<std::mutex> stop_lock(mutex_);
        return stopped_;
      });
    } catch (const std::exception& e) {  // nobody above this thread would catch it
      batch = absl::InternalError(absl::StrCat("collecting step ", step, ": ", e.what()));
    }
    lock.lock();
    AccountIdle();
    --collecting_;
    ready_.emplace(step, std::move(batch));
    changed_.notify_all();
  }
}

absl::StatusOr<v1::CollectedBatch> BatchPipeline::Take(const Stop& stop) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (next_taken_ > last_)
    return absl::OutOfRangeError(absl::StrCat("step ", last_, " was the last one"));
  const Clock::time_point begin = Clock::now();
  while (ready_.count(next_taken_) == 0) {
    if (stop()) return absl::CancelledError("stopped while waiting for rollouts");
    changed_.wait_for(lock, std::chrono::milliseconds(100));
  }
  idle_.learner += std::chrono::duration<double>(Clock::now() - begin).count();
  absl::StatusOr<v1::CollectedBatch> batch = std::move(ready_.extract(next_taken_).mapped());
  if (batch.ok()) {
    ++next_taken_;
  } else {
    stopped_ = true;
    ready_.emplace(next_taken_, batch.status());
    changed_.notify_all();
  }
  return batch;
}

void BatchPipeline::Published(uint64_t step) {
  std::lock_guard<std::mutex> lock(mutex_);
  published_ = step;
  changed_.notify_all();
}

BatchPipeline::Idle BatchPipeline::TakeIdle() {
  std::lock_guard<std::mutex> lock(mutex_);
  AccountIdle();
  return std::exchange(idle_, Idle());
}

}  // namespace e3
