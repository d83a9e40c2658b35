#include "rollout_server/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "model/log_softmax.h"
#include "model/vector_math.h"
#include "services/runtime/philox.h"

namespace e3 {
namespace {

// Logits below which waking threads costs more than the work.
constexpr int64_t kWorthThreads = 1 << 14;

// Buffers that a thread uses again.
struct Scratch {
  std::vector<float> weights;   // e^((logit - max) / T), padded with zeros to whole vectors
  std::vector<float> adjusted;  // logits with penalties, biases and bans
  std::vector<int32_t> order;
  std::vector<double> sums;  // of blocks of weights
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
    // Far below everything, but finite.
    for (uint32_t token : *list) (*adjusted)[token] = -1e30f;
  }
}

bool Truncates(const SamplingParams& s, int64_t n) {
  return (s.top_k > 0 && s.top_k < n) || (s.top_p > 0 && s.top_p < 1) || s.min_p > 0;
}

// Sets the weights that top-k, top-p and min-p (in this order) drop to zero; `sum` is that of all.
void Truncate(const SamplingParams& sampling, int64_t n, double sum, Scratch& scratch) {
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
}

struct Drawn {
  int64_t token;
  double total;  // of all weights
};

// The first token whose cumulative weight exceeds u times the total, for u in [0, 1). Sums of
// blocks first, so that a large vocabulary is not walked token by token.
Drawn InverseCdf(Scratch& scratch, double u) {
  constexpr size_t kBlock = 512;
  const std::vector<float>& weight = scratch.weights;
  std::vector<double>& sums = scratch.sums;
  sums.clear();
  double total = 0;
  for (size_t begin = 0; begin < weight.size(); begin += kBlock) {
    Vec sum = Splat(0);
    for (size_t i = begin; i < std::min(weight.size(), begin + kBlock); i += kLanes)
      sum += Load(&weight[i]);
    sums.push_back(Sum(sum));
    total += sums.back();
  }
  double left = u * total;
  size_t block = 0;
  // Never past the last block that has any weight.
  for (size_t next = 0; next < sums.size(); ++next) {
    if (sums[next] <= 0) continue;
    block = next;
    if (left < sums[next]) break;
    left -= sums[next];
  }
  const size_t begin = block * kBlock, end = std::min(weight.size(), begin + kBlock);
  for (size_t i = begin; i < end; ++i) {
    left -= weight[i];
    if (left < 0) return {static_cast<int64_t>(i), total};
  }
  // Rounding left a hair: the likeliest of the block, not whatever stands last.
  const auto first = weight.begin();
  return {std::max_element(first + static_cast<std::ptrdiff_t>(begin),
                           first + static_cast<std::ptrdiff_t>(end)) -
              first,
          total};
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

// The numbers of out->token that do not depend on how it was drawn.
void Report(const float* logits, int64_t n, const SamplingParams& s, const SoftmaxRow& policy,
            OutputToken* out) {
  out->logprob = policy.LogProbability(logits[out->token]);
  out->entropy = static_cast<float>(policy.entropy);
  const SoftmaxRow raw = s.raw_logprobs && policy.inverse_temperature != 1
                             ? ComputeSoftmaxRow(logits, n, 1, nullptr)
                             : policy;
  if (s.raw_logprobs) {
    out->raw_logprob = raw.LogProbability(logits[out->token]);
    out->raw_entropy = static_cast<float>(raw.entropy);
  }
  ReportTop(logits, n, s.top_logprobs, raw, &out->top);
}

OutputToken SampleToken(const DrawRequest& r, int64_t n, Scratch& scratch) {
  const SamplingParams& s = *r.sampling;
  const bool greedy = s.temperature <= 0, adjusts = AdjustsLogits(r);
  const float inverse_temperature = InverseTemperature(s.temperature);
  scratch.weights.resize(static_cast<size_t>((n + kLanes - 1) / kLanes * kLanes));
  // The policy's distribution, which the log-probability and entropy are of, and the one to draw
  // from.
  const SoftmaxRow policy = ComputeSoftmaxRow(r.logits, n, inverse_temperature,
                                              adjusts ? nullptr : scratch.weights.data());
  SoftmaxRow drawn = policy;
  if (adjusts) {
    AdjustLogits(r, n, &scratch.adjusted);
    drawn =
        ComputeSoftmaxRow(scratch.adjusted.data(), n, inverse_temperature, scratch.weights.data());
    for (const auto* list : r.forbidden) {
      if (list == nullptr) continue;
      for (uint32_t token : *list) scratch.weights[token] = 0;  // e^-87 is not zero
    }
  }
  OutputToken out;
  out.token = static_cast<uint32_t>(drawn.argmax);
  if (!greedy) {
    const bool truncates = Truncates(s, n);
    if (truncates) Truncate(s, n, drawn.sum, scratch);
    const auto [token, total] = InverseCdf(scratch, UniformDouble(r.seed, r.position, r.sample));
    out.token = static_cast<uint32_t>(std::min(token, n - 1));  // padding, where nothing is finite
    const float logit = adjusts ? scratch.adjusted[out.token] : r.logits[out.token];
    // ln (weight / total); where nothing was cut it is the log-softmax, to the bit.
    out.sampled_logprob = truncates
                              ? static_cast<float>((static_cast<double>(logit) - drawn.max_logit) *
                                                       inverse_temperature -
                                                   std::log(total))
                              : drawn.LogProbability(logit);
  }
  Report(r.logits, n, s, policy, &out);
  return out;
}

}  // namespace

std::vector<OutputToken> SampleTokens(const std::vector<DrawRequest>& requests,
                                      int64_t vocab_size) {
  std::vector<OutputToken> draws(requests.size());
  const int64_t n = static_cast<int64_t>(requests.size());
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

std::vector<OutputToken> ScoreTokens(const float* logits, int64_t vocab_size,
                                     const SamplingParams& sampling,
                                     const std::vector<uint32_t>& tokens) {
  std::vector<OutputToken> scores(tokens.size());
  const int64_t n = static_cast<int64_t>(tokens.size());
#pragma omp parallel for schedule(dynamic, 4) if (n * vocab_size >= kWorthThreads)
  for (int64_t i = 0; i < n; ++i) {
    OutputToken& out = scores[static_cast<size_t>(i)];
    const float* row = logits + i * vocab_size;
    out.token = tokens[static_cast<size_t>(i)];
    Report(row, vocab_size, sampling,
           ComputeSoftmaxRow(row, vocab_size, InverseTemperature(sampling.temperature), nullptr),
           &out);
    out.sampled_logprob = out.logprob;
  }
  return scores;
}

}  // namespace e3
