// The GRPO objective as pure functions on tensors.
//
// For a token with log-probability logp under the policy, logp_old under the policy that sampled
// it, and advantage A:
//   ρ = exp(clamp(logp - logp_old, ±20))
//   L = max(-A ρ, -A clamp(ρ, 1 - clip_low, 1 + clip_high));  where A < 0 also L = min(L, -A
//   dual_clip)
// Token losses are averaged over all tokens of the mini-batch. GRPOMask (Section 5, App. G.3) keeps
// only tokens with A > 0, and averages over just those. KL to the reference is k3 = clamp(e^k - k -
// 1, ±10) with k = clamp(logp_ref - logp, ±20) (Schulman 2020), and entropy a bonus; both are
// averaged over all tokens.
#ifndef E3_LEARNER_POLICY_LOSS_H_
#define E3_LEARNER_POLICY_LOSS_H_

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>

namespace e3 {

struct PolicyLossOptions {
  double clip_low = 0.2;
  double clip_high = 0.2;
  double dual_clip = 3;
  double kl_coef = 0;
  double entropy_coef = 0;
  bool mask_negative = false;
};

// What a token contributes; all fp32 [T].
struct PolicyTokens {
  at::Tensor logprobs;   // differentiable
  at::Tensor entropies;  // differentiable; may be undefined when entropy_coef is 0
  at::Tensor old_logprobs;
  at::Tensor ref_logprobs;  // undefined when kl_coef is 0
  at::Tensor advantages;
};

// Token counts of the whole mini-batch (all micro-batches, all ranks), so that sums over its parts
// add up to its mean.
struct PolicyDenominators {
  double all_tokens = 1;
  double positive_tokens = 1;  // with A > 0
};

struct PolicyLoss {
  at::Tensor
      loss;  // scalar; backward() on the sum over micro-batches is the gradient of the mini-batch
  // Sums over tokens, for statistics.
  double policy = 0, kl = 0, entropy = 0, ratio = 0;
  double clipped_low = 0, clipped_high = 0, clipped_dual = 0;
};

// The policy loss of every token, [T].
at::Tensor TokenPolicyLoss(const at::Tensor& logprobs, const at::Tensor& old_logprobs,
                           const at::Tensor& advantages, const PolicyLossOptions& options);
// The k3 estimate of KL(policy || reference) of every token, [T].
at::Tensor TokenKl(const at::Tensor& logprobs, const at::Tensor& ref_logprobs);

PolicyLoss ComputePolicyLoss(const PolicyTokens& tokens, const PolicyDenominators& denominators,
                             const PolicyLossOptions& options);

}  // namespace e3

#endif  // E3_LEARNER_POLICY_LOSS_H_
