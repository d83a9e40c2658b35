#include "learner/flops.h"

#include <algorithm>
#include <vector>

#include "model/packed_matrix.h"
#include "services/runtime/stopwatch.h"

namespace e3 {

int64_t LayerProductWeights(const ModelConfig& c) {
  const int64_t q = c.num_heads * c.head_dim, kv = c.num_kv_heads * c.head_dim;
  return c.hidden_size * (2 * q + 2 * kv + 3 * c.intermediate_size);
}

double TrainingFlops(const ModelConfig& c, int64_t length, int64_t head_tokens) {
  const double n = static_cast<double>(length), hidden = static_cast<double>(c.hidden_size),
               q = static_cast<double>(c.num_heads * c.head_dim),
               layers = static_cast<double>(c.num_layers);
  const double weights = static_cast<double>(LayerProductWeights(c));
  const double attention = 2 * q * n * (n + 1) / 2;  // scores and values, causal
  const double head = static_cast<double>(head_tokens) * hidden * static_cast<double>(c.vocab_size);
  return 6 * (layers * (n * weights + attention) + head);
}

double MeasurePeakFlops() {
  constexpr int64_t kRows = 512, kSize = 1024;
  const std::vector<float> weight(kSize * kSize, 0.5f), x(kRows * kSize, 0.25f);
  std::vector<float> y(kRows * kSize);
  PackedMatrix packed(kSize, kSize);
  packed.Pack(weight.data());
  packed.Multiply(x.data(), kRows, nullptr, y.data());  // wakes the threads
  double best = 0;
  for (Stopwatch all; all.Seconds() < 0.1;) {
    Stopwatch once;
    packed.Multiply(x.data(), kRows, nullptr, y.data());
    best = std::max(best, 2.0 * kRows * kSize * kSize / once.Seconds());
  }
  return best;
}

}  // namespace e3
