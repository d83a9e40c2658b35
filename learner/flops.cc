#include "learner/flops.h"

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

}  // namespace e3
