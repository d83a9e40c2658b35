#include "learner/policy_loss.h"

#include <ATen/ops/clamp.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/where.h>

namespace e3 {
namespace {

at::Tensor Ratio(const at::Tensor& logprobs, const at::Tensor& old_logprobs) {
  return at::exp(at::clamp(logprobs - old_logprobs, -20, 20));
}

double Count(const at::Tensor& condition) {
  return static_cast<double>(condition.sum().item<int64_t>());
}

}  // namespace

at::Tensor TokenPolicyLoss(const at::Tensor& logprobs, const at::Tensor& old_logprobs,
                           const at::Tensor& advantages, const PolicyLossOptions& o) {
  at::Tensor ratio = Ratio(logprobs, old_logprobs);
  at::Tensor clipped = at::clamp(ratio, 1 - o.clip_low, 1 + o.clip_high);
  at::Tensor loss = at::maximum(-advantages * ratio, -advantages * clipped);
  return at::where(advantages < 0, at::minimum(loss, -advantages * o.dual_clip), loss);
}

at::Tensor TokenKl(const at::Tensor& logprobs, const at::Tensor& ref_logprobs,
                   KlEstimator estimator) {
  at::Tensor k = ref_logprobs - logprobs;
  switch (estimator) {
    case KlEstimator::kK1:
      return -k;
    case KlEstimator::kK2:
      return k * k / 2;
    case KlEstimator::kK3:
      break;
  }
  k = at::clamp(k, -20, 20);  // far beyond where the result is clamped: e^k stays finite
  return at::clamp(at::exp(k) - k - 1, -10, 10);
}

void MiniBatchCounts::Add(double n, double advantage) {
  if (n == 0) return;
  tokens += n;
  sequences += 1;
  if (advantage <= 0) return;
  positive_tokens += n;
  positive_sequences += 1;
}

double TokenWeight(const MiniBatchCounts& counts, const Aggregation& aggregation, double tokens) {
  return aggregation.sequence_mean ? 1 / (counts.sequences * tokens) : 1 / counts.tokens;
}

double PolicyTokenWeight(const MiniBatchCounts& counts, const Aggregation& aggregation,
                         double tokens, double advantage) {
  if (!aggregation.mask_negative) return TokenWeight(counts, aggregation, tokens);
  if (advantage <= 0) return 0;
  return aggregation.sequence_mean ? 1 / (counts.positive_sequences * tokens)
                                   : 1 / counts.positive_tokens;
}

PolicyLoss ComputePolicyLoss(const PolicyTokens& t, const PolicyLossOptions& o) {
  PolicyLoss result;
  result.loss =
      (TokenPolicyLoss(t.logprobs, t.old_logprobs, t.advantages, o) * t.policy_weights).sum();
  if (t.ref_logprobs.defined()) {
    at::Tensor kl = TokenKl(t.logprobs, t.ref_logprobs, o.kl_estimator);
    result.kl = kl.sum().item<float>();
    if (o.kl_coef != 0) result.loss = result.loss + (kl * t.weights).sum() * o.kl_coef;
  }
  if (t.entropies.defined()) {
    result.entropy = t.entropies.sum().item<float>();
    if (o.entropy_coef != 0)
      result.loss = result.loss - (t.entropies * t.weights).sum() * o.entropy_coef;
  }
  at::Tensor ratio = Ratio(t.logprobs.detach(), t.old_logprobs);
  result.ratio = ratio.sum().item<float>();
  result.ratio_max = ratio.max().item<float>();
  result.clipped_low = Count((ratio < 1 - o.clip_low) & (t.advantages < 0));
  result.clipped_high = Count((ratio > 1 + o.clip_high) & (t.advantages > 0));
  result.clipped_dual = Count((ratio > o.dual_clip) & (t.advantages < 0));
  return result;
}

}  // namespace e3
