#include "model/log_softmax.h"

#include <algorithm>
#include <cmath>

#include "model/vector_math.h"

namespace e3 {
namespace {

// The largest of a row, and the first place where it stands.
void FindMax(const float* logits, int64_t n, SoftmaxRow* row) {
  Vec max = Splat(-INFINITY);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Vec x = Load(logits + i);
    max = x > max ? x : max;
  }
  float m = -INFINITY;
  for (int lane = 0; lane < kLanes; ++lane) m = std::max(m, max[lane]);
  for (; i < n; ++i) m = std::max(m, logits[i]);
  row->max_logit = m;
  const float* at = std::find(logits, logits + n, m);
  row->argmax = at == logits + n ? 0 : at - logits;  // all NaN
}

}  // namespace

SoftmaxRow ComputeSoftmaxRow(const float* logits, int64_t n, float inverse_temperature,
                             float* weights) {
  SoftmaxRow row;
  row.inverse_temperature = inverse_temperature;
  FindMax(logits, n, &row);
  double weighted = 0;  // sum of e^score * score
  for (int64_t i = 0; i < n; i += 512) {
    // Partial sums in float, totals in double: exact enough for any vocabulary.
    const int64_t end = std::min<int64_t>(i + 512, n);
    Vec sum = Splat(0), scores = Splat(0);
    for (int64_t j = i; j < end; j += kLanes) {
      Vec logit, present = Splat(1);
      if (j + kLanes <= end) {
        logit = Load(logits + j);
      } else {
        float tail[kLanes], mask[kLanes];
        for (int64_t k = 0; k < kLanes; ++k) {
          mask[k] = j + k < end ? 1.0f : 0.0f;
          tail[k] = j + k < end ? logits[j + k] : row.max_logit;
        }
        logit = Load(tail);
        present = Load(mask);
      }
      const Vec score = (logit - Splat(row.max_logit)) * Splat(inverse_temperature);
      const Vec e = Exp(score) * present;
      if (weights != nullptr) Store(weights + j, e);
      sum += e;
      scores += e * score;
    }
    row.sum += Sum(sum);
    weighted += Sum(scores);
  }
  row.log_sum = std::log(row.sum);
  row.entropy = row.log_sum - weighted / row.sum;
  return row;
}

void ComputeSoftmaxRows(const float* logits, int64_t rows, int64_t n, float inverse_temperature,
                        SoftmaxRow* out) {
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows; ++r)
    out[r] = ComputeSoftmaxRow(logits + r * n, n, inverse_temperature, nullptr);
}

void SoftmaxRowsBackward(float* logits, int64_t rows, int64_t n, float inverse_temperature,
                         const SoftmaxRowGradient* gradients) {
#pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows; ++r) {
    float* z = logits + r * n;
    const SoftmaxRowGradient& g = gradients[r];
    const SoftmaxRow row = ComputeSoftmaxRow(z, n, inverse_temperature, nullptr);
    // With s the scaled logits: d logp[t] / ds = onehot(t) - p, d entropy / ds = -p (log p +
    // entropy).
    const float log_sum = static_cast<float>(row.log_sum);
    const float entropy = static_cast<float>(row.entropy);
    for (int64_t i = 0; i < n; i += kLanes) {
      const int64_t lanes = std::min<int64_t>(kLanes, n - i);
      float at[kLanes] = {};
      std::copy(z + i, z + i + lanes, at);
      Vec log_p = (Load(at) - Splat(row.max_logit)) * Splat(inverse_temperature) - Splat(log_sum);
      log_p = log_p > Splat(0) ? Splat(0) : log_p;  // Exp takes no positive numbers
      const Vec d =
          -Exp(log_p) * (Splat(g.d_logprob) + Splat(g.d_entropy) * (log_p + Splat(entropy)));
      Store(at, d * Splat(inverse_temperature));
      std::copy(at, at + lanes, z + i);
    }
    z[g.target] += g.d_logprob * inverse_temperature;
  }
}

}  // namespace e3
