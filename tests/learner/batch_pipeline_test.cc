#include "learner/service/batch_pipeline.h"

#include <atomic>
#include <catch2/catch.hpp>
#include <chrono>
#include <thread>

#include "services/runtime/philox.h"

namespace e3 {
namespace {

const auto kNever = [] { return false; };

void Sleep(double milliseconds) {
  std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(milliseconds));
}

TEST_CASE("batches come in order, none begins beyond the bound, and the bound is used") {
  for (int64_t staleness : {0, 1, 3}) {
    constexpr uint64_t kFirst = 5, kLast = 44;
    std::atomic<uint64_t> published{kFirst - 1};
    std::atomic<int64_t> running{0}, most{0}, furthest{0}, beyond{0};
    BatchPipeline pipeline(kFirst, kLast, staleness, [&](uint64_t step, const auto&) {
      const int64_t ahead = static_cast<int64_t>(step) - 1 - static_cast<int64_t>(published);
      if (ahead > staleness) ++beyond;
      if (ahead > furthest) furthest = ahead;
      const int64_t now = ++running;
      if (now > most) most = now;
      PhiloxStream random(7, step);
      Sleep(4 * random.Uniform());
      --running;
      v1::CollectedBatch batch;
      batch.set_step(step);
      return absl::StatusOr<v1::CollectedBatch>(batch);
    });
    for (uint64_t step = kFirst; step <= kLast; ++step) {
      absl::StatusOr<v1::CollectedBatch> batch = pipeline.Take(kNever);
      REQUIRE(batch.ok());
      REQUIRE(batch->step() == step);
      PhiloxStream random(8, step);
      Sleep(4 * random.Uniform());
      published = step;
      pipeline.Published(step);
    }
    CHECK(beyond == 0);
    CHECK(furthest == staleness);
    CHECK(most <= staleness + 1);
    CHECK(absl::IsOutOfRange(pipeline.Take(kNever).status()));
  }
}

TEST_CASE("each side's waiting is counted as its own") {
  auto slow = [](uint64_t step, const auto&) {
    Sleep(30);
    v1::CollectedBatch batch;
    batch.set_step(step);
    return absl::StatusOr<v1::CollectedBatch>(batch);
  };
  BatchPipeline pipeline(1, 100, 0, slow);
  REQUIRE(pipeline.Take(kNever).ok());
  BatchPipeline::Idle waited = pipeline.TakeIdle();
  CHECK(waited.learner >= 0.025);
  CHECK(waited.rollouts < waited.learner);
  Sleep(50);  // the update
  pipeline.Published(1);
  BatchPipeline::Idle learned = pipeline.TakeIdle();
  CHECK(learned.learner == 0);
  CHECK(learned.rollouts >= 0.045);
}

TEST_CASE("an error comes out at its step and ends the pipeline; so does a stop") {
  std::atomic<int> collected{0};
  BatchPipeline pipeline(1, 10, 1, [&](uint64_t step, const auto&) {
    ++collected;
    v1::CollectedBatch batch;
    batch.set_step(step);
    return step == 2 ? absl::StatusOr<v1::CollectedBatch>(absl::DataLossError("torn"))
                     : absl::StatusOr<v1::CollectedBatch>(batch);
  });
  CHECK(pipeline.Take(kNever)->step() == 1);
  pipeline.Published(1);
  CHECK(absl::IsDataLoss(pipeline.Take(kNever).status()));
  CHECK(absl::IsDataLoss(pipeline.Take(kNever).status()));
  pipeline.Published(9);
  Sleep(20);
  CHECK(collected <= 4);  // what had begun; nothing after the error

  std::atomic<bool> told{false};
  {
    BatchPipeline endless(1, 10, 2, [&](uint64_t, const BatchPipeline::Stop& stop) {
      while (!stop()) Sleep(1);
      told = true;
      return absl::StatusOr<v1::CollectedBatch>(absl::CancelledError("stopped"));
    });
    int asked = 0;
    CHECK(absl::IsCancelled(endless.Take([&] { return ++asked > 1; }).status()));
  }
  CHECK(told);
}

}  // namespace
}  // namespace e3
