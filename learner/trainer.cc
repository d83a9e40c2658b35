#include "learner/trainer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "learner/learning_rate.h"
#include "learner/policy_loss.h"
#include "learner/token_logprobs.h"

namespace e3 {

double OptimizerStep(Transformer& model, AdamW& optimizer, const AdamWOptions& options,
                     double max_grad_norm) {
  const double norm = GlobalNorm(model.gradients(), model.layout().size());
  if (!std::isfinite(norm)) return norm;
  const double scale =
      max_grad_norm > 0 && norm > max_grad_norm ? max_grad_norm / (norm + 1e-6) : 1.0;
  model.UpdateParameters(
      [&](float* parameters) { optimizer.Step(options, model.gradients(), scale, parameters); });
  return norm;
}

Trainer::Trainer(std::unique_ptr<Transformer> policy)
    : policy_(std::move(policy)), optimizer_(&policy_->layout()) {
  policy_->EnableGradients();
  ResetReference();
}

void Trainer::ResetReference() {
  reference_parameters_.assign(policy_->parameters(),
                               policy_->parameters() + policy_->layout().size());
  reference_.reset();
}

std::vector<float>& Trainer::reference_parameters() { return reference_parameters_; }

UpdateStatistics Trainer::Update(const std::vector<const TrainingRollout*>& all_rollouts,
                                 const v1::Training& training, double temperature) {
  PolicyLossOptions options;
  options.clip_low = training.clip_low();
  options.clip_high = training.clip_high();
  options.dual_clip = training.dual_clip();
  options.kl_coef = training.kl_coef();
  options.kl_estimator = training.kl_estimator() == v1::KL_ESTIMATOR_K1   ? KlEstimator::kK1
                         : training.kl_estimator() == v1::KL_ESTIMATOR_K2 ? KlEstimator::kK2
                                                                          : KlEstimator::kK3;
  options.entropy_coef = training.entropy_coef();
  const Aggregation aggregation{training.advantage_mask() == v1::ADVANTAGE_MASK_NEGATIVE,
                                training.loss_aggregation() == v1::LOSS_AGGREGATION_SEQUENCE_MEAN};

  // Every token of the mini-batch counts, also of rollouts that carry no gradient.
  MiniBatchCounts counts;
  std::vector<const TrainingRollout*> rollouts;
  std::vector<int64_t> lengths;
  const bool only_policy = options.kl_coef == 0 && options.entropy_coef == 0;
  for (const TrainingRollout* rollout : all_rollouts) {
    counts.Add(static_cast<double>(rollout->sequence.trained_tokens()), rollout->advantage);
    const bool no_gradient =
        rollout->advantage == 0 || (aggregation.mask_negative && rollout->advantage < 0);
    if (only_policy && no_gradient) continue;
    rollouts.push_back(rollout);
    lengths.push_back(rollout->sequence.length());
  }

  UpdateStatistics statistics;
  policy_->ZeroGradients();
  size_t begin = 0;
  for (size_t end : MicroBatches(lengths, training.micro_batch_tokens())) {
    std::vector<const TrainingSequence*> sequences;
    std::vector<float> old_logprobs, advantages, weights, policy_weights;
    for (size_t i = begin; i < end; ++i) {
      const TrainingRollout& r = *rollouts[i];
      sequences.push_back(&r.sequence);
      for (size_t k = 0; k < r.old_logprobs.size(); ++k) {
        if (!r.sequence.IsForced(k)) old_logprobs.push_back(r.old_logprobs[k]);
      }
      const double tokens = static_cast<double>(r.sequence.trained_tokens());
      auto each = [&](std::vector<float>& values, double value) {
        values.resize(values.size() + static_cast<size_t>(tokens), static_cast<float>(value));
      };
      each(advantages, r.advantage);
      each(weights, TokenWeight(counts, aggregation, tokens));
      each(policy_weights, PolicyTokenWeight(counts, aggregation, tokens, r.advantage));
    }
    begin = end;
    const int64_t n = static_cast<int64_t>(old_logprobs.size());
    if (n == 0) continue;
    PackedBatch batch = Pack(sequences);
    PolicyTokens tokens;
    tokens.old_logprobs = at::from_blob(old_logprobs.data(), {n}, at::kFloat);
    tokens.advantages = at::from_blob(advantages.data(), {n}, at::kFloat);
    tokens.weights = at::from_blob(weights.data(), {n}, at::kFloat);
    tokens.policy_weights = at::from_blob(policy_weights.data(), {n}, at::kFloat);
    if (options.kl_coef != 0) {
      at::NoGradGuard no_grad;
      if (reference_ == nullptr) {
        reference_ = std::make_unique<Transformer>(policy_->config());
        reference_->UpdateParameters([&](float* parameters) {
          std::copy(reference_parameters_.begin(), reference_parameters_.end(), parameters);
        });
      }
      tokens.ref_logprobs = ForwardLogprobs(*reference_, batch, temperature).logprobs;
    }
    TokenLogprobs forward =
        ForwardLogprobs(*policy_, batch, temperature, training.recompute_activations());
    tokens.logprobs = forward.logprobs;
    tokens.entropies = options.entropy_coef != 0 ? forward.entropies : forward.entropies.detach();
    PolicyLoss loss = ComputePolicyLoss(tokens, options);
    loss.loss.backward();

    at::Tensor difference = at::abs(tokens.logprobs.detach() - tokens.old_logprobs);
    statistics.mismatch_max =
        std::max<double>(statistics.mismatch_max, difference.max().item<float>());
    statistics.mismatch_mean += difference.sum().item<float>();
    statistics.loss += loss.loss.item<float>();
    statistics.kl += loss.kl;
    statistics.entropy += loss.entropy;
    statistics.ratio += loss.ratio;
    statistics.clip_low_share += loss.clipped_low;
    statistics.clip_high_share += loss.clipped_high;
    statistics.clip_dual_share += loss.clipped_dual;
    statistics.tokens += n;
  }
  if (statistics.tokens == 0) {
    statistics.skipped = true;
    return statistics;
  }
  const double n = static_cast<double>(statistics.tokens);
  for (double* mean :
       {&statistics.mismatch_mean, &statistics.kl, &statistics.entropy, &statistics.ratio,
        &statistics.clip_low_share, &statistics.clip_high_share, &statistics.clip_dual_share}) {
    *mean /= n;
  }
  statistics.learning_rate = LearningRate(
      {training.learning_rate(), training.warmup_updates(),
       training.learning_rate_decay() == v1::LEARNING_RATE_DECAY_LINEAR   ? Decay::kLinear
       : training.learning_rate_decay() == v1::LEARNING_RATE_DECAY_COSINE ? Decay::kCosine
                                                                          : Decay::kConstant,
       training.decay_updates(), training.min_learning_rate_ratio()},
      optimizer_.updates() + 1);
  const AdamWOptions adamw{statistics.learning_rate, training.beta1(), training.beta2(),
                           training.epsilon(), training.weight_decay()};
  statistics.gradient_norm = OptimizerStep(*policy_, optimizer_, adamw, training.max_grad_norm());
  statistics.finite = std::isfinite(statistics.gradient_norm);
  statistics.skipped = !statistics.finite;
  return statistics;
}

}  // namespace e3
