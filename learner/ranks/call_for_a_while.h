// Calls that may never return.
#ifndef E3_LEARNER_RANKS_CALL_FOR_A_WHILE_H_
#define E3_LEARNER_RANKS_CALL_FOR_A_WHILE_H_

#include <chrono>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <thread>
#include <utility>

#include "absl/status/statusor.h"
#include "services/runtime/stopwatch.h"

namespace e3 {

// f(), called in a thread of its own; what it throws as Internal. DeadlineExceeded when it has not
// returned in `seconds`, or when `give_up` says so first: the thread is left behind then, so `f`
// owns what it uses.
template <typename T>
absl::StatusOr<T> CallForAWhile(std::function<T()> f, double seconds,
                                const std::function<bool()>& give_up) {
  auto result = std::make_shared<std::promise<absl::StatusOr<T>>>();
  std::future<absl::StatusOr<T>> called = result->get_future();
  std::thread([f = std::move(f), result]() mutable {
    absl::StatusOr<T> value = absl::InternalError("not called");
    try {
      value = f();
    } catch (const std::exception& e) {
      value = absl::InternalError(e.what());
    }
    f = nullptr;  // before anyone knows
    result->set_value(std::move(value));
  }).detach();
  const Stopwatch waiting;
  while (called.wait_for(std::chrono::milliseconds(20)) != std::future_status::ready) {
    if (give_up()) return absl::DeadlineExceededError("given up");
    if (waiting.Seconds() > seconds) return absl::DeadlineExceededError("timed out");
  }
  return called.get();
}

}  // namespace e3

#endif  // E3_LEARNER_RANKS_CALL_FOR_A_WHILE_H_
