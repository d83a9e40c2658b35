#include "rollout_server/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "model/log_softmax.h"
#include "services/runtime/philox.h"

namespace e3 {
namespace {

// Buffers that a thread uses again.
struct Scratch {
  std::vector<float> weights;   // e^((logit - max) / T)
  std::vector<float> adjusted;  // logits with penalties, biases and bans
  std::vector<int32_t> order;
};

bool AdjustsLogits(const DrawRequest& r) {
  const SamplingParams& s = *r.sampling;
  return s.repetition_penalty != 1 || !s.logit_bias.empty() || r.forbidden[0] || r.forbidden[1];
}

void AdjustLogits(const DrawRequest& r, int64_t n, std::vector<float>* adjusted) {
  adjusted->assign(r.logits, r.logits + n);
  const SamplingParams& s = *r.sampling;
  if (s.repetition_penalty != 1 && r.tokens != nullptr) {
    const float penalty = static_cast<float>(s.repetition_penalty);
    for (uint32_t token : *r.tokens) {
      // From the model's logit, so that a token that occurs twice is penalised once.
      const float z = r.logits[token];
      (*adjusted)[token] = z > 0 ? z / penalty : z * penalty;
    }
  }
  for (const auto& [token, bias] : s.logit_bias) (*adjusted)[token] += bias;
  for (const auto* list : r.forbidden) {
    if (list == nullptr) continue;
    // Far below everything, but finite: its weight is zero once the maximum is subtracted.
    for (uint32_t token : *list) (*adjusted)[token] = -1e30f;
  }
}

// Sets the weights that top-k, top-p and min-p (in this order) drop to zero; returns what is left.
double Truncate(const SamplingParams& sampling, int64_t n, double sum, Scratch& scratch) {
  std::vector<float>& weight = scratch.weights;
  auto w = [&](int32_t i) { return weight[static_cast<size_t>(i)]; };
  const bool top_k = sampling.top_k > 0 && sampling.top_k < n;
  const bool top_p = sampling.top_p > 0 && sampling.top_p < 1;
  if (top_k || top_p) {
    std::vector<int32_t>& order = scratch.order;
    order.clear();
    // Tokens so unlikely that all of them together are not needed for top_p are not looked at.
    const float least =
        top_p && !top_k
            ? static_cast<float>((1 - sampling.top_p) * sum / static_cast<double>(n) * 0.99)
            : 0.0f;
    for (int32_t i = 0; i < n; ++i) {
      if (w(i) > least) order.push_back(i);
    }
    auto more_likely = [&](int32_t a, int32_t b) { return w(a) != w(b) ? w(a) > w(b) : a < b; };
    size_t keep = order.size();
    if (top_k && static_cast<size_t>(sampling.top_k) < order.size()) {
      keep = static_cast<size_t>(sampling.top_k);
      std::nth_element(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(keep - 1),
                       order.end(), more_likely);
    }
    if (top_p) {
      std::sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(keep), more_likely);
      double total = top_k ? 0 : sum, mass = 0;
      for (size_t i = 0; top_k && i < keep; ++i) total += w(order[i]);
      for (size_t i = 0; i < keep; ++i) {
        mass += w(order[i]);
        if (mass >= sampling.top_p * total) keep = i + 1;
      }
    }
    order.resize(keep);
    std::sort(order.begin(), order.end());
    auto kept = order.begin();
    for (int32_t i = 0; i < n; ++i) {
      if (kept != order.end() && *kept == i) {
        ++kept;
      } else {
        weight[static_cast<size_t>(i)] = 0;
      }
    }
  }
  if (sampling.min_p > 0) {
    // The most likely token has weight 1.
    for (int64_t i = 0; i < n; ++i) {
      float& x = weight[static_cast<size_t>(i)];
      if (x < static_cast<float>(sampling.min_p)) x = 0;
    }
  }
  if (!top_k && !top_p && sampling.min_p <= 0) return sum;
  return std::accumulate(weight.begin(), weight.begin() + n, 0.0);
}

// The first token whose cumulative weight exceeds `threshold`.
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

void ReportTop(const float* logits, int64_t n, int64_t count, const SoftmaxRow& row,
               std::vector<TopToken>* top) {
  count = std::min(count, n);
  if (count <= 0) return;
  std::vector<uint32_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0u);
  std::partial_sort(order.begin(), order.begin() + count, order.end(), [&](uint32_t a, uint32_t b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  });
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t token = order[static_cast<size_t>(i)];
    top->push_back({token, row.LogProbability(logits[token])});
  }
}

OutputToken SampleToken(const DrawRequest& r, int64_t n, Scratch& scratch) {
  const SamplingParams& s = *r.sampling;
  const bool greedy = s.temperature <= 0, adjusts = AdjustsLogits(r);
  const float inverse_temperature = InverseTemperature(s.temperature);
  scratch.weights.resize(static_cast<size_t>(n) + 7);
  // The policy's distribution, which the log-probability and entropy are of, and the one to draw
  // from.
  const SoftmaxRow policy = ComputeSoftmaxRow(r.logits, n, inverse_temperature,
                                              adjusts ? nullptr : scratch.weights.data());
  SoftmaxRow drawn = policy;
  if (adjusts) {
    AdjustLogits(r, n, &scratch.adjusted);
    drawn =
        ComputeSoftmaxRow(scratch.adjusted.data(), n, inverse_temperature, scratch.weights.data());
  }
  OutputToken out;
  out.token = static_cast<uint32_t>(drawn.argmax);
  if (!greedy) {
    const double total = Truncate(s, n, drawn.sum, scratch);
    const double u = UniformDouble(r.seed, r.position, r.sample);
    out.token = static_cast<uint32_t>(InverseCdf(scratch.weights, n, u * total));
    const float logit = adjusts ? scratch.adjusted[out.token] : r.logits[out.token];
    // ln (weight / total); where nothing was cut it is the log-softmax, to the bit.
    out.sampled_logprob = total == drawn.sum
                              ? drawn.LogProbability(logit)
                              : static_cast<float>((static_cast<double>(logit) - drawn.max_logit) *
                                                       inverse_temperature -
                                                   std::log(total));
  }
  out.logprob = policy.LogProbability(r.logits[out.token]);
  out.entropy = static_cast<float>(policy.entropy);
  ReportTop(r.logits, n, s.top_logprobs, policy, &out.top);
  return out;
}

}  // namespace

std::vector<OutputToken> SampleTokens(const std::vector<DrawRequest>& requests,
                                      int64_t vocab_size) {
  std::vector<OutputToken> draws(requests.size());
  const int64_t n = static_cast<int64_t>(requests.size());
  constexpr int64_t kWorthThreads = 1 << 14;
#pragma omp parallel if (n * vocab_size >= kWorthThreads)
  {
    Scratch scratch;
#pragma omp for schedule(dynamic, 4)
    for (int64_t i = 0; i < n; ++i) {
      draws[static_cast<size_t>(i)] =
          SampleToken(requests[static_cast<size_t>(i)], vocab_size, scratch);
    }
  }
  return draws;
}

OutputToken ScoreToken(const float* logits, int64_t vocab_size, const SamplingParams& sampling,
                       uint32_t token) {
  const SoftmaxRow row =
      ComputeSoftmaxRow(logits, vocab_size, InverseTemperature(sampling.temperature), nullptr);
  OutputToken out;
  out.token = token;
  out.logprob = out.sampled_logprob = row.LogProbability(logits[token]);
  out.entropy = static_cast<float>(row.entropy);
  ReportTop(logits, vocab_size, sampling.top_logprobs, row, &out.top);
  return out;
}

}  // namespace e3
