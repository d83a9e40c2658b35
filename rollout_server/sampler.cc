#include "rollout_server/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "model/log_softmax.h"
#include "services/runtime/philox.h"

namespace e3 {
namespace {

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

Draw SampleToken(const DrawRequest& request, int64_t n, std::vector<float>& weights) {
  weights.resize(static_cast<size_t>(n) + 7);
  const SoftmaxRow row = ComputeSoftmaxRow(
      request.logits, n, InverseTemperature(request.sampling.temperature), weights.data());
  int64_t token = row.argmax;
  if (request.sampling.temperature > 0) {
    double total = Truncate(request.sampling, n, row.sum, weights);
    double u = UniformDouble(request.seed, request.position, request.sample);
    token = InverseCdf(weights, n, u * total);
  }
  return {static_cast<uint32_t>(token), row.LogProbability(request.logits[token]),
          static_cast<float>(row.entropy)};
}

}  // namespace

std::vector<Draw> SampleTokens(const std::vector<DrawRequest>& requests, int64_t vocab_size) {
  std::vector<Draw> draws(requests.size());
  const int64_t n = static_cast<int64_t>(requests.size());
#pragma omp parallel
  {
    std::vector<float> weights;
#pragma omp for schedule(dynamic, 4)
    for (int64_t i = 0; i < n; ++i) {
      draws[static_cast<size_t>(i)] =
          SampleToken(requests[static_cast<size_t>(i)], vocab_size, weights);
    }
  }
  return draws;
}

}  // namespace e3
