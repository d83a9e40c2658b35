#include "rollout_server/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "model/vector_math.h"
#include "services/runtime/philox.h"

namespace e3 {
namespace {

// Weights e^((logit - max) / T) of a row, padded with zeros to whole vectors, and what the outputs
// need of them.
struct Weights {
  std::vector<float> weight;
  double sum = 0;
  double weighted_score = 0;  // sum of weight * (logit - max) / T
  float max_logit = 0;
  int64_t argmax = 0;
};

void ComputeWeights(const float* logits, int64_t n, float inverse_temperature, Weights* out) {
  out->argmax = std::max_element(logits, logits + n) - logits;
  out->max_logit = logits[out->argmax];
  out->weight.resize(static_cast<size_t>((n + kLanes - 1) / kLanes * kLanes));
  out->sum = out->weighted_score = 0;
  float* w = out->weight.data();
  for (int64_t i = 0; i < n; i += 512) {
    // Partial sums in float, totals in double: exact enough for any vocabulary.
    const int64_t end = std::min<int64_t>(i + 512, n);
    Vec sum = Splat(0), scores = Splat(0);
    int64_t j = i;
    for (; j + kLanes <= end; j += kLanes) {
      Vec score = (Load(logits + j) - Splat(out->max_logit)) * Splat(inverse_temperature);
      Vec e = Exp(score);
      Store(w + j, e);
      sum += e;
      scores += e * score;
    }
    if (j < end) {
      float tail[kLanes];
      std::fill(tail, tail + kLanes, -INFINITY);
      std::copy(logits + j, logits + end, tail);
      Vec score = (Load(tail) - Splat(out->max_logit)) * Splat(inverse_temperature);
      Vec present = score == Splat(-INFINITY) ? Splat(0) : Splat(1);
      score = score == Splat(-INFINITY) ? Splat(0) : score;
      Vec e = Exp(score) * present;
      Store(w + j, e);
      sum += e;
      scores += e * score;
    }
    out->sum += Sum(sum);
    out->weighted_score += Sum(scores);
  }
}

// Sets the weights that top-k, top-p and min-p (in this order) drop to zero; returns what is left.
double Truncate(const SamplingParams& sampling, int64_t n, double sum, std::vector<float>& weight) {
  bool top_k =
      sampling.top_k > 0 && sampling.top_k<n, top_p = sampling.top_p> 0 && sampling.top_p < 1;
  if (top_k || top_p) {
    std::vector<int32_t> order(static_cast<size_t>(n));
    std::iota(order.begin(), order.end(), 0);
    auto more_likely = [&](int32_t a, int32_t b) {
      return weight[static_cast<size_t>(a)] != weight[static_cast<size_t>(b)]
                 ? weight[static_cast<size_t>(a)] > weight[static_cast<size_t>(b)]
                 : a < b;
    };
    std::sort(order.begin(), order.end(), more_likely);
    size_t keep = top_k ? static_cast<size_t>(sampling.top_k) : order.size();
    if (top_p) {
      double total = 0;
      for (size_t i = 0; i < keep; ++i) total += weight[static_cast<size_t>(order[i])];
      double wanted = sampling.top_p * total, mass = 0;
      for (size_t i = 0; i < keep; ++i) {
        mass += weight[static_cast<size_t>(order[i])];
        if (mass >= wanted) keep = i + 1;
      }
    }
    for (size_t i = keep; i < order.size(); ++i) weight[static_cast<size_t>(order[i])] = 0;
  }
  if (sampling.min_p > 0) {
    // The most likely token has weight 1.
    for (float& w : weight) {
      if (w < static_cast<float>(sampling.min_p)) w = 0;
    }
  }
  if (!top_k && !top_p && sampling.min_p <= 0) return sum;
  return std::accumulate(weight.begin(), weight.begin() + n, 0.0);
}

// The first token whose cumulative weight exceeds u * sum.
int64_t InverseCdf(const std::vector<float>& weight, int64_t n, double threshold) {
  double cumulative = 0;
  int64_t last = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (weight[static_cast<size_t>(i)] == 0) continue;
    cumulative += weight[static_cast<size_t>(i)];
    last = i;
    if (cumulative > threshold) return i;
  }
  return last;  // rounding left the threshold a hair above the total
}

Draw SampleToken(const DrawRequest& request, int64_t n, Weights& weights) {
  const bool greedy = request.sampling.temperature <= 0;
  const float inverse_temperature =
      greedy ? 1.0f : static_cast<float>(1.0 / request.sampling.temperature);
  ComputeWeights(request.logits, n, inverse_temperature, &weights);
  const double log_sum = std::log(weights.sum);
  int64_t token = weights.argmax;
  if (!greedy) {
    double total = Truncate(request.sampling, n, weights.sum, weights.weight);
    double u = UniformDouble(request.seed, request.position, request.sample);
    token = InverseCdf(weights.weight, n, u * total);
  }
  double score =
      (static_cast<double>(request.logits[token]) - weights.max_logit) * inverse_temperature;
  return {static_cast<uint32_t>(token), static_cast<float>(score - log_sum),
          static_cast<float>(log_sum - weights.weighted_score / weights.sum)};
}

}  // namespace

std::vector<Draw> SampleTokens(const std::vector<DrawRequest>& requests, int64_t vocab_size) {
  std::vector<Draw> draws(requests.size());
  const int64_t n = static_cast<int64_t>(requests.size());
#pragma omp parallel
  {
    Weights weights;
#pragma omp for schedule(dynamic, 4)
    for (int64_t i = 0; i < n; ++i) {
      draws[static_cast<size_t>(i)] =
          SampleToken(requests[static_cast<size_t>(i)], vocab_size, weights);
    }
  }
  return draws;
}

}  // namespace e3
