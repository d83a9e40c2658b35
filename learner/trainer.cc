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
#include "learner/ranks/gradient_reducer.h"
#include "learner/token_logprobs.h"
#include "services/runtime/no_throw.h"
#include "services/runtime/status_macros.h"

namespace e3 {

TrainerState InitialState(const Transformer& policy) {
  const int64_t n = policy.layout().size();
  auto zeros = std::make_shared<std::vector<float>>(static_cast<size_t>(n));
  const std::shared_ptr<const float> moments(zeros, zeros->data());
  const std::shared_ptr<const float> parameters = CopyFloats(policy.parameters(), n);
  return {0, parameters, moments, moments, parameters};
}

namespace {

// Every rank's part of `whole` to all others.
void StartExchange(Collectives& ranks, const at::Tensor& whole) {
  for (int rank = 0; rank < ranks.size(); ++rank) {
    const auto [begin, end] = RankRange(whole.numel(), rank, ranks.size());
    if (begin < end) ranks.StartBroadcast(whole.narrow(0, begin, end - begin), rank);
  }
}

PolicyLossOptions LossOptions(const v1::Training& training) {
  PolicyLossOptions options;
  options.clip_low = training.clip_low();
  options.clip_high = training.clip_high();
  options.dual_clip = training.dual_clip();
  options.kl_coef = training.kl_coef();
  options.kl_estimator = training.kl_estimator() == v1::KL_ESTIMATOR_K1   ? KlEstimator::kK1
                         : training.kl_estimator() == v1::KL_ESTIMATOR_K2 ? KlEstimator::kK2
                                                                          : KlEstimator::kK3;
  options.entropy_coef = training.entropy_coef();
  return options;
}

Aggregation AggregationOf(const v1::Training& training) {
  return {training.advantage_mask() == v1::ADVANTAGE_MASK_NEGATIVE,
          training.loss_aggregation() == v1::LOSS_AGGREGATION_SEQUENCE_MEAN};
}

LearningRateSchedule Schedule(const v1::Training& training) {
  return {training.learning_rate(), training.warmup_updates(),
          training.learning_rate_decay() == v1::LEARNING_RATE_DECAY_LINEAR   ? Decay::kLinear
          : training.learning_rate_decay() == v1::LEARNING_RATE_DECAY_COSINE ? Decay::kCosine
                                                                             : Decay::kConstant,
          training.decay_updates(), training.min_learning_rate_ratio()};
}

// The tokens of packed rollouts as the loss takes them; the vectors hold what the tensors view.
struct TokenColumns {
  std::vector<const TrainingSequence*> sequences;
  std::vector<float> old_logprobs, advantages, weights, policy_weights;
  std::vector<size_t> incorrect_ends;  // where the last token of an incorrect response is

  void Add(const TrainingRollout& r, const MiniBatchCounts& counts,
           const Aggregation& aggregation) {
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
    if (r.ended && r.advantage < 0) incorrect_ends.push_back(old_logprobs.size() - 1);
  }

  PolicyTokens Tensors(const at::TensorOptions& like) {
    auto tensor = [&](std::vector<float>& values) {
      return at::from_blob(values.data(), {static_cast<int64_t>(values.size())}, at::kFloat)
          .to(like);
    };
    PolicyTokens tokens;
    tokens.old_logprobs = tensor(old_logprobs);
    tokens.advantages = tensor(advantages);
    tokens.weights = tensor(weights);
    tokens.policy_weights = tensor(policy_weights);
    return tokens;
  }
};

}  // namespace

c10::ScalarType ProductType(v1::ComputeDtype dtype) {
  return dtype == v1::COMPUTE_DTYPE_BF16 ? at::kBFloat16 : at::kFloat;
}

MiniBatch MakeMiniBatch(const std::vector<const TrainingRollout*>& rollouts,
                        const v1::Training& training) {
  MiniBatch batch;
  const bool only_policy = training.kl_coef() == 0 && training.entropy_coef() == 0;
  const bool masked = training.advantage_mask() == v1::ADVANTAGE_MASK_NEGATIVE;
  for (const TrainingRollout* rollout : rollouts) {
    batch.counts.Add(static_cast<double>(rollout->sequence.trained_tokens()), rollout->advantage);
    const bool no_gradient = rollout->advantage == 0 || (masked && rollout->advantage < 0);
    if (rollout->sequence.trained_tokens() == 0) continue;
    if (!(only_policy && no_gradient)) batch.rollouts.push_back(rollout);
  }
  return batch;
}

Trainer::Trainer(std::unique_ptr<Transformer> policy, bool offload_optimizer)
    : policy_(std::move(policy)),
      offload_optimizer_(offload_optimizer),
      optimizer_(policy_.get(), offload_optimizer, 0, policy_->layout().size()) {
  policy_->EnableGradients();
  ResetReference();
}

void Trainer::JoinRanks(Collectives* collectives, bool shard_optimizer) {
  collectives_ = collectives;
  if (!shard_optimizer) return;
  const auto [begin, end] =
      RankRange(policy_->layout().size(), collectives->rank(), collectives->size());
  const Optimizer::Moments moments = optimizer_.GetMoments(/*copy=*/false);
  const int64_t updates = optimizer_.updates();
  Optimizer part(policy_.get(), offload_optimizer_, begin, end);
  if (!policy_->device().is_cpu() && !offload_optimizer_) optimizer_.Reset();  // makes room
  part.Restore(updates, moments.first.get() + begin, moments.second.get() + begin);
  optimizer_ = std::move(part);
}

absl::StatusOr<TrainerState> Trainer::State(bool copy) {
  const int64_t n = policy_->layout().size();
  const float* parameters = policy_->parameters();
  const Optimizer::Moments moments = optimizer_.GetMoments(copy);
  TrainerState state{optimizer_.updates(),
                     copy ? CopyFloats(parameters, n) : ViewFloats(parameters), moments.first,
                     moments.second, reference_parameters_};
  if (optimizer_.whole()) return state;
  for (std::shared_ptr<const float>* moment : {&state.first_moment, &state.second_moment}) {
    auto whole = std::make_shared<at::Tensor>(at::empty({n}, at::kFloat));
    float* floats = whole->mutable_data_ptr<float>();
    std::copy_n(moment->get(), optimizer_.end() - optimizer_.begin(), floats + optimizer_.begin());
    StartExchange(*collectives_, *whole);
    E3_RETURN_IF_ERROR(collectives_->Wait());
    *moment = {whole, floats};
  }
  return state;
}

void Trainer::Restore(const TrainerState& state) {
  const int64_t n = policy_->layout().size();
  policy_->UpdateParameters(
      [&](float* to) { std::copy(state.parameters.get(), state.parameters.get() + n, to); });
  optimizer_.Restore(state.updates, state.first_moment.get() + optimizer_.begin(),
                     state.second_moment.get() + optimizer_.begin());
  reference_parameters_ = state.reference;
  reference_.reset();
}

RankShares Trainer::Shares(int neighbours) const {
  return {neighbours, optimizer_.whole() ? 1 : collectives_->size()};
}

void Trainer::BeginStage(const v1::Training& training) {
  if (training.fresh_optimizer()) optimizer_.Reset();
  if (training.reset_reference()) ResetReference();
}

void Trainer::ResetReference() {
  reference_parameters_ = CopyFloats(policy_->parameters(), policy_->layout().size());
  reference_.reset();
}

absl::StatusOr<UpdateStatistics> Trainer::ComputeGradients(const MiniBatch& mini_batch,
                                                           const v1::Training& training,
                                                           double temperature) {
  return NoThrow([&] { return AccumulateGradients(mini_batch, training, temperature); });
}

absl::StatusOr<UpdateStatistics> Trainer::AccumulateGradients(const MiniBatch& mini_batch,
                                                              const v1::Training& training,
                                                              double temperature) {
  const PolicyLossOptions options = LossOptions(training);
  const Aggregation aggregation = AggregationOf(training);
  std::vector<int64_t> lengths;
  for (const TrainingRollout* rollout : mini_batch.rollouts)
    lengths.push_back(rollout->sequence.length());

  UpdateStatistics statistics;
  policy_->MultiplyIn(ProductType(training.compute_dtype()));
  policy_->ZeroGradients();
  GradientReducer reducer(policy_.get(), collectives_);
  size_t begin = 0;
  for (size_t end : MicroBatches(lengths, training.micro_batch_tokens())) {
    TokenColumns columns;
    for (; begin < end; ++begin)
      columns.Add(*mini_batch.rollouts[begin], mini_batch.counts, aggregation);
    if (columns.advantages.empty()) continue;
    PackedBatch batch = Pack(columns.sequences);
    PolicyTokens tokens = columns.Tensors(policy_->flat_gradients().options());
    if (options.kl_coef != 0) {
      at::NoGradGuard no_grad;
      if (reference_ == nullptr) {
        reference_ =
            std::make_unique<Transformer>(policy_->config(), policy_->device(), policy_->dtype());
        reference_->UpdateParameters([&](float* parameters) {
          std::copy(reference_parameters_.get(),
                    reference_parameters_.get() + policy_->layout().size(), parameters);
        });
      }
      reference_->MultiplyIn(policy_->products());
      tokens.ref_logprobs = ForwardLogprobs(*reference_, batch, temperature).logprobs;
    }
    if (end == lengths.size()) reducer.WatchLastBackward();
    TokenLogprobs forward =
        ForwardLogprobs(*policy_, batch, temperature, training.recompute_activations());
    tokens.logprobs = forward.logprobs;
    tokens.entropies = options.entropy_coef != 0 ? forward.entropies : forward.entropies.detach();
    PolicyLoss loss = ComputePolicyLoss(tokens, options);
    loss.loss.backward();

    at::Tensor change = tokens.logprobs.detach() - tokens.old_logprobs,
               difference = at::abs(change);
    statistics.loss += loss.loss.item<float>();
    TokenStatistics of_batch;
    of_batch.tokens = difference.numel();
    of_batch.kl = loss.kl;
    of_batch.ratio = loss.ratio;
    of_batch.ratio_max = loss.ratio_max;
    of_batch.clip_low_share = loss.clipped_low;
    of_batch.clip_high_share = loss.clipped_high;
    of_batch.clip_dual_share = loss.clipped_dual;
    of_batch.mismatch_mean = difference.sum().item<float>();
    of_batch.mismatch_max = difference.max().item<float>();
    of_batch.incorrect_ends = static_cast<int64_t>(columns.incorrect_ends.size());
    for (size_t i : columns.incorrect_ends)
      of_batch.incorrect_end_shift += change[static_cast<int64_t>(i)].item<float>();
    statistics.tokens.Add(of_batch);
  }
  E3_RETURN_IF_ERROR(reducer.Finish());
  return statistics;
}

absl::StatusOr<UpdateStatistics> Trainer::Update(const MiniBatch& mini_batch,
                                                 const v1::Training& training, double temperature) {
  E3_ASSIGN_OR_RETURN(UpdateStatistics statistics,
                      ComputeGradients(mini_batch, training, temperature));
  return NoThrow([&] { return Step(std::move(statistics), training); });
}

absl::StatusOr<UpdateStatistics> Trainer::Step(UpdateStatistics statistics,
                                               const v1::Training& training) {
  statistics.learning_rate = LearningRate(Schedule(training), optimizer_.updates() + 1);
  const AdamWOptions adamw{statistics.learning_rate, training.beta1(), training.beta2(),
                           training.epsilon(), training.weight_decay()};
  absl::Status exchanged;
  std::function<void(const at::Tensor&)> exchange;
  if (!optimizer_.whole()) {
    exchange = [&](const at::Tensor& parameters) {
      StartExchange(*collectives_, parameters);
      exchanged = collectives_->Wait();
    };
  }
  statistics.gradient_norm = optimizer_.Step(adamw, training.max_grad_norm(), exchange);
  E3_RETURN_IF_ERROR(exchanged);
  statistics.finite = std::isfinite(statistics.gradient_norm);
  statistics.skipped = !statistics.finite;
  return statistics;
}

}  // namespace e3
