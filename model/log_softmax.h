// The log-softmax of a row of logits: what the sampler reports and the learner trains on are the
// same function, so they are the same bits.
#ifndef E3_MODEL_LOG_SOFTMAX_H_
#define E3_MODEL_LOG_SOFTMAX_H_

#include <algorithm>
#include <cstdint>

namespace e3 {

// 1 / T as all of these take it; T = 0 (greedy) counts as 1.
inline float InverseTemperature(double temperature) {
  return temperature <= 0 ? 1.0f : static_cast<float>(1.0 / temperature);
}

// Rows of logits that training holds at once: 64 MiB of floats.
inline int64_t LogitChunkRows(int64_t vocab_size) {
  return std::max<int64_t>(16, (int64_t{16} << 20) / vocab_size);
}

// Of softmax(logits / T) over one row.
struct SoftmaxRow {
  float max_logit = 0;
  int64_t argmax = 0;  // the first of the largest
  float inverse_temperature = 1;
  double sum = 0;      // of e^((logit - max_logit) / T); accurate to a few 1e-7
  double log_sum = 0;  // its logarithm
  double entropy = 0;  // nats

  // ln softmax(logits / T)[i], given logits[i].
  float LogProbability(float logit) const {
    return static_cast<float>((static_cast<double>(logit) - max_logit) * inverse_temperature -
                              log_sum);
  }
};

// `logits` [n] are finite. `weights`, when not null, takes e^((logit - max_logit) / T), [n] and
// up to 7 zeros more.
SoftmaxRow ComputeSoftmaxRow(const float* logits, int64_t n, float inverse_temperature,
                             float* weights);

// Of every row: out[r] for logits + r * n. Parallel with OpenMP.
void ComputeSoftmaxRows(const float* logits, int64_t rows, int64_t n, float inverse_temperature,
                        SoftmaxRow* out);

// The gradient of d_logprob * ln softmax(logits / T)[target] + d_entropy * entropy with respect to
// a row's logits, which it replaces.
struct SoftmaxRowGradient {
  int64_t target;
  float d_logprob;
  float d_entropy;
};

// For every row of `logits` [rows, n]; temperature 1 / inverse_temperature. Parallel with OpenMP.
void SoftmaxRowsBackward(float* logits, int64_t rows, int64_t n, float inverse_temperature,
                         const SoftmaxRowGradient* gradients);

}  // namespace e3

#endif  // E3_MODEL_LOG_SOFTMAX_H_
