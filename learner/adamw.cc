#include "learner/adamw.h"

#include <algorithm>
#include <cmath>

namespace e3 {

AdamW::AdamW(const ParameterLayout* layout) : AdamW(layout, 0, layout->size()) {}

AdamW::AdamW(const ParameterLayout* layout, int64_t begin, int64_t end)
    : layout_(layout),
      begin_(begin),
      end_(end),
      first_moment_(static_cast<size_t>(end - begin), 0.0f),
      second_moment_(static_cast<size_t>(end - begin), 0.0f) {}

void AdamW::Reset() {
  std::fill(first_moment_.begin(), first_moment_.end(), 0.0f);
  std::fill(second_moment_.begin(), second_moment_.end(), 0.0f);
  updates_ = 0;
}

void AdamW::Step(const AdamWOptions& o, const float* gradients, double gradient_scale,
                 float* parameters) {
  ++updates_;
  const double correction1 = 1 - std::pow(o.beta1, static_cast<double>(updates_));
  const double correction2 = 1 - std::pow(o.beta2, static_cast<double>(updates_));
  const float beta1 = static_cast<float>(o.beta1), beta2 = static_cast<float>(o.beta2);
  const float rate = static_cast<float>(o.learning_rate / correction1);
  const float inverse_root = static_cast<float>(1 / std::sqrt(correction2));
  const float epsilon = static_cast<float>(o.epsilon), scale = static_cast<float>(gradient_scale);
  for (const ParameterSlot& slot : layout_->slots()) {
    const float keep = slot.decay ? static_cast<float>(1 - o.learning_rate * o.weight_decay) : 1.0f;
    const int64_t first = std::max(slot.offset, begin_),
                  size = std::min(slot.offset + slot.size, end_) - first;
    if (size <= 0) continue;
    float* p = parameters + first;
    const float* g = gradients + first;
    float* m = first_moment_.data() + (first - begin_);
    float* v = second_moment_.data() + (first - begin_);
#pragma omp parallel for simd schedule(static) if (size > 65536)
    for (int64_t i = 0; i < size; ++i) {
      const float gradient = g[i] * scale;
      m[i] = beta1 * m[i] + (1 - beta1) * gradient;
      v[i] = beta2 * v[i] + (1 - beta2) * gradient * gradient;
      p[i] = keep * p[i] - rate * m[i] / (std::sqrt(v[i]) * inverse_root + epsilon);
    }
  }
}

double GlobalNorm(const float* gradients, int64_t n) {
  constexpr int64_t kChunk = 65536;
  const int64_t chunks = (n + kChunk - 1) / kChunk;
  std::vector<double> sums(static_cast<size_t>(chunks));
#pragma omp parallel for schedule(static)
  for (int64_t c = 0; c < chunks; ++c) {
    double sum = 0;
    for (int64_t i = c * kChunk; i < std::min(n, (c + 1) * kChunk); ++i)
      sum += static_cast<double>(gradients[i]) * gradients[i];
    sums[static_cast<size_t>(c)] = sum;
  }
  double total = 0;
  for (double sum : sums) total += sum;
  return std::sqrt(total);
}

}  // namespace e3
