// Learning rates over the updates of a run.
#ifndef E3_LEARNER_LEARNING_RATE_H_
#define E3_LEARNER_LEARNING_RATE_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>

namespace e3 {

enum class Decay { kConstant, kLinear, kCosine };

struct LearningRateSchedule {
  double peak = 0;
  int64_t warmup_updates = 0;  // rises linearly from 0 to the peak
  Decay decay = Decay::kConstant;
  int64_t total_updates = 0;  // at which it has fallen to peak * min_ratio; warm-up included
  double min_ratio = 0;
};

// Of update 1, 2, 3, …
inline double LearningRate(const LearningRateSchedule& s, int64_t update) {
  if (update <= s.warmup_updates)
    return s.peak * static_cast<double>(update) / static_cast<double>(s.warmup_updates);
  if (s.decay == Decay::kConstant) return s.peak;
  const double span = static_cast<double>(std::max<int64_t>(1, s.total_updates - s.warmup_updates));
  const double done = std::min(1.0, static_cast<double>(update - s.warmup_updates) / span);
  const double left =
      s.decay == Decay::kLinear ? 1 - done : 0.5 * (1 + std::cos(std::numbers::pi * done));
  return s.peak * (s.min_ratio + (1 - s.min_ratio) * left);
}

}  // namespace e3

#endif  // E3_LEARNER_LEARNING_RATE_H_
