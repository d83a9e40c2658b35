// How much an answer may cost.
#ifndef E3_REWARD_SERVICE_MATH_LIMITS_H_
#define E3_REWARD_SERVICE_MATH_LIMITS_H_

#include <chrono>
#include <cstdint>

namespace e3::math {

struct Limits {
  int64_t characters = 16384;  // of an answer
  int depth = 100;             // of nested brackets, braces and signs
  int64_t nodes = 20000;       // of the parsed answer
  int64_t digits = 20000;      // of one number
  int64_t bits = 131072;       // of an exact value (numerator and denominator)
  int64_t steps = 30000;       // of one evaluation: a small operation is one, a long one more
  int64_t list_items = 100;
  // A last resort: a verdict does not depend on it, only whether there is one.
  std::chrono::milliseconds time{1000};
};

// What is left of the steps and the time of one verdict.
class Work {
 public:
  explicit Work(const Limits& limits)
      : limits_(limits), end_(std::chrono::steady_clock::now() + limits.time) {}

  // Starts an evaluation anew.
  void Restart() { steps_ = 0; }
  // False when the evaluation has used up its steps, or the verdict its time.
  bool Spend(int64_t steps) {
    steps_ += steps;
    total_ += steps;
    if (total_ - checked_ > 200) {
      checked_ = total_;
      timed_out_ = timed_out_ || std::chrono::steady_clock::now() > end_;
    }
    return steps_ <= limits_.steps && total_ <= 4 * limits_.steps && !timed_out_;
  }
  const Limits& limits() const { return limits_; }
  bool timed_out() const { return timed_out_; }

 private:
  const Limits& limits_;
  std::chrono::steady_clock::time_point end_;
  int64_t steps_ = 0, total_ = 0, checked_ = 0;
  bool timed_out_ = false;
};

}  // namespace e3::math

#endif  // E3_REWARD_SERVICE_MATH_LIMITS_H_
