#include "learner/sft.h"

#include <ATen/ops/sum.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "learner/adamw.h"
#include "learner/learning_rate.h"
#include "learner/token_logprobs.h"
#include "learner/trainer.h"
#include "services/runtime/philox.h"
#include "services/runtime/status_macros.h"
#include "services/runtime/stopwatch.h"

namespace e3 {

absl::Status RunSft(const v1::SftTraining& t, TrainerState start, const SftBatches& batches,
                    const SftStepDone& done, Transformer* model) {
  const int64_t n = model->layout().size();
  model->UpdateParameters([&](float* to) { std::copy_n(start.parameters.get(), n, to); });
  start.parameters.reset();
  model->MultiplyIn(ProductType(t.compute_dtype()));
  Optimizer optimizer(model, t.offload_optimizer(), 0, n);
  optimizer.Restore(start.updates, start.first_moment.get(), start.second_moment.get());
  const int64_t done_before = start.updates;
  start = {};  // as much memory as the optimizer has
  model->EnableGradients();
  const LearningRateSchedule schedule{t.learning_rate(), t.warmup_steps(), Decay::kCosine,
                                      t.steps(), t.min_ratio()};
  const Stopwatch training;
  int64_t tokens_done = 0;
  for (int64_t step = done_before + 1; step <= t.steps(); ++step) {
    E3_ASSIGN_OR_RETURN(std::vector<TrainingSequence> sequences, batches(step));
    std::vector<int64_t> lengths;
    int64_t response_tokens = 0;
    for (const TrainingSequence& s : sequences) {
      lengths.push_back(s.length());
      tokens_done += s.length();
      response_tokens += s.trained_tokens();
    }
    model->ZeroGradients();
    double loss = 0;
    size_t first = 0;
    for (size_t end : MicroBatches(lengths, t.micro_batch_tokens())) {
      std::vector<const TrainingSequence*> micro_batch;
      for (; first < end; ++first) micro_batch.push_back(&sequences[first]);
      at::Tensor logprobs =
          ForwardLogprobs(*model, Pack(micro_batch), 1.0, t.recompute_activations()).logprobs;
      at::Tensor part = logprobs.sum() * (-1.0 / static_cast<double>(response_tokens));
      part.backward();
      loss += part.item<float>();
    }
    AdamWOptions options{LearningRate(schedule, step), t.beta1(), t.beta2(), 1e-8,
                         t.weight_decay()};
    const double norm = optimizer.Step(options, t.max_grad_norm());
    if (!std::isfinite(norm)) {
      return absl::OutOfRangeError(absl::StrCat("the gradient of step ", step,
                                                " is not finite; lower training.learning_rate"));
    }
    const SftState state = [&] {
      const auto parameters = ViewFloats(model->parameters());
      const Optimizer::Moments moments = optimizer.GetMoments(/*copy=*/false);
      return TrainerState{step, parameters, moments.first, moments.second,
                          /*reference=*/parameters};
    };
    E3_RETURN_IF_ERROR(done({step, t.steps(), loss, options.learning_rate,
                             static_cast<double>(tokens_done) / training.Seconds()},
                            state));
  }
  return absl::OkStatus();
}

void InitializeParameters(uint64_t seed, const ParameterLayout& layout, float* parameters) {
  uint64_t stream = 0;
  for (const ParameterSlot& slot : layout.slots()) {
    ++stream;
    float* p = parameters + slot.offset;
    if (slot.shape.size() == 1) {
      std::fill(p, p + slot.size, absl::EndsWith(slot.name, ".bias") ? 0.0f : 1.0f);
      continue;
    }
    double deviation = absl::StrContains(slot.name, "embed")
                           ? 0.02
                           : 0.7 / std::sqrt(static_cast<double>(slot.shape[1]));
    PhiloxStream random(seed, stream);
    for (int64_t i = 0; i < slot.size; ++i) {
      // Box-Muller.
      double u = 1 - random.Uniform(), v = random.Uniform();
      p[i] = static_cast<float>(deviation * std::sqrt(-2 * std::log(u)) *
                                std::cos(2 * std::numbers::pi * v));
    }
  }
}

}  // namespace e3
