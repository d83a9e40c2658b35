// Seconds since it was made.
#ifndef E3_SERVICES_RUNTIME_STOPWATCH_H_
#define E3_SERVICES_RUNTIME_STOPWATCH_H_

#include <chrono>

namespace e3 {

class Stopwatch {
 public:
  double Seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  }

 private:
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

}  // namespace e3

#endif  // E3_SERVICES_RUNTIME_STOPWATCH_H_
