#include "reward_service/service/worker_pool.h"

#include <atomic>
#include <catch2/catch.hpp>

namespace e3 {
namespace {

TEST_CASE("every task runs once, from many submitters, and what is queued runs before the end") {
  std::vector<std::atomic<int>> runs(20000);
  {
    WorkerPool pool(4);
    std::vector<std::thread> submitters;
    for (size_t s = 0; s < 4; ++s) {
      submitters.emplace_back([&, s] {
        for (size_t i = s; i < runs.size(); i += 4) pool.Submit([&runs, i] { ++runs[i]; });
      });
    }
    for (std::thread& thread : submitters) thread.join();
  }
  for (const std::atomic<int>& count : runs) CHECK(count == 1);
}

TEST_CASE("one thread runs tasks in the order in which they came") {
  std::vector<int> order;
  {
    WorkerPool pool(1);
    for (int i = 0; i < 1000; ++i) pool.Submit([&order, i] { order.push_back(i); });
  }
  for (int i = 0; i < 1000; ++i) CHECK(order[static_cast<size_t>(i)] == i);
}

}  // namespace
}  // namespace e3
