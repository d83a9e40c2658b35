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

at::Tensor TokenKl(const at::Tensor& logprobs, const at::Tensor& ref_logprobs) {
  at::Tensor k = at::clamp(ref_logprobs - logprobs, -20, 20);
  return at::clamp(at::exp(k) - k - 1, -10, 10);
}

PolicyLoss ComputePolicyLoss(const PolicyTokens& t, const PolicyDenominators& denominators,
                             const PolicyLossOptions& o) {
  PolicyLoss result;
  at::Tensor token_loss = TokenPolicyLoss(t.logprobs, t.old_logprobs, t.advantages, o);
  if (o.mask_negative) token_loss = at::where(t.advantages > 0, token_loss, 0.0);
  at::Tensor policy = token_loss.sum();
  result.loss = policy / (o.mask_negative ? denominators.positive_tokens : denominators.all_tokens);
  result.policy = policy.item<float>();
  if (t.ref_logprobs.defined()) {
    at::Tensor kl = TokenKl(t.logprobs, t.ref_logprobs).sum();
    result.kl = kl.item<float>();
    if (o.kl_coef != 0) result.loss = result.loss + kl * (o.kl_coef / denominators.all_tokens);
  }
  if (t.entropies.defined()) {
    at::Tensor entropy = t.entropies.sum();
    result.entropy = entropy.item<float>();
    if (o.entropy_coef != 0)
      result.loss = result.loss - entropy * (o.entropy_coef / denominators.all_tokens);
  }
  at::Tensor ratio = Ratio(t.logprobs.detach(), t.old_logprobs);
  result.ratio = ratio.sum().item<float>();
  result.clipped_low = Count((ratio < 1 - o.clip_low) & (t.advantages < 0));
  result.clipped_high = Count((ratio > 1 + o.clip_high) & (t.advantages > 0));
  result.clipped_dual = Count((ratio > o.dual_clip) & (t.advantages < 0));
  return result;
}

}  // namespace e3
