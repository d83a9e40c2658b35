// The soft overlong measure, as the rollout server marks and the learner punishes it.
#ifndef E3_SERVICES_RUNTIME_OVERLONG_H_
#define E3_SERVICES_RUNTIME_OVERLONG_H_

#include <algorithm>
#include <cstdint>

namespace e3 {

// How far a response of `length` tokens reaches into the last `soft_tokens` of its budget: 0 up to
// budget - soft_tokens, rising linearly to 1 at the budget (Yu et al. 2025, DAPO). 0 when
// soft_tokens is 0.
inline double Overlong(int64_t length, int64_t budget, int64_t soft_tokens) {
  if (soft_tokens <= 0) return 0;
  const double into = static_cast<double>(length - (budget - soft_tokens));
  return std::clamp(into / static_cast<double>(soft_tokens), 0.0, 1.0);
}

}  // namespace e3

#endif  // E3_SERVICES_RUNTIME_OVERLONG_H_
