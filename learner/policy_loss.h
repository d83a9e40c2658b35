// The GRPO objective as pure functions on tensors.
//
// For a token with log-probability logp under the policy, logp_old under the policy that sampled
// it, and advantage A:
//   ρ = exp(clamp(logp - logp_old, ±20))
//   L = max(-A ρ, -A clamp(ρ, 1 - clip_low, 1 + clip_high));  where A < 0 also L = min(L, -A
//   dual_clip)
// Token losses are averaged over the whole mini-batch: each token has a weight, and the weights of
// a mini-batch (all micro-batches, all ranks) sum to 1. GRPOMask (Section 5, App. G.3) gives tokens
// with A <= 0 no weight in the policy loss. KL to the reference (Schulman 2020) and the entropy
// bonus are averaged over all tokens.
#ifndef E3_LEARNER_POLICY_LOSS_H_
#define E3_LEARNER_POLICY_LOSS_H_

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>

namespace e3 {

enum class KlEstimator { kK1, kK2, kK3 };

struct PolicyLossOptions {
  double clip_low = 0.2;
  double clip_high = 0.2;
  double dual_clip = 3;
  double kl_coef = 0;
  KlEstimator kl_estimator = KlEstimator::kK3;
  double entropy_coef = 0;
};

// How tokens of a mini-batch are weighted.
struct Aggregation {
  bool mask_negative = false;  // GRPOMask
  bool sequence_mean = false;  // every response counts the same; else every token
};

// What a token contributes; all fp32 [T].
struct PolicyTokens {
  at::Tensor logprobs;   // differentiable
  at::Tensor entropies;  // differentiable; may be undefined when entropy_coef is 0
  at::Tensor old_logprobs;
  at::Tensor ref_logprobs;  // undefined when kl_coef is 0
  at::Tensor advantages;
  at::Tensor weights;         // of KL and entropy
  at::Tensor policy_weights;  // of the policy loss
};

// What the weights are made of: counts over the whole mini-batch, not over a part of it.
struct MiniBatchCounts {
  double tokens = 0, positive_tokens = 0;        // with A > 0
  double sequences = 0, positive_sequences = 0;  // that have tokens

  // One response of `tokens` trained tokens.
  void Add(double tokens, double advantage);
};
// The weights of each token of a response of `tokens` trained tokens.
double TokenWeight(const MiniBatchCounts& counts, const Aggregation& aggregation, double tokens);
double PolicyTokenWeight(const MiniBatchCounts& counts, const Aggregation& aggregation,
                         double tokens, double advantage);

struct PolicyLoss {
  at::Tensor
      loss;  // scalar; backward() on the sum over micro-batches is the gradient of the mini-batch
  // Sums over tokens, for statistics.
  double kl = 0, entropy = 0, ratio = 0;
  double ratio_max = 0;
  double clipped_low = 0, clipped_high = 0, clipped_dual = 0;
};

// The policy loss of every token, [T].
at::Tensor TokenPolicyLoss(const at::Tensor& logprobs, const at::Tensor& old_logprobs,
                           const at::Tensor& advantages, const PolicyLossOptions& options);
// The estimate of KL(policy || reference) of every token, [T]: with k = logp_ref - logp, -k, k² /
// 2, or clamp(e^k - k - 1, ±10).
at::Tensor TokenKl(const at::Tensor& logprobs, const at::Tensor& ref_logprobs,
                   KlEstimator estimator);

PolicyLoss ComputePolicyLoss(const PolicyTokens& tokens, const PolicyLossOptions& options);

}  // namespace e3

#endif  // E3_LEARNER_POLICY_LOSS_H_
