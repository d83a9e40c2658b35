#include "learner/sft.h"

#include <ATen/core/grad_mode.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <cstdlib>

#include "learner/token_logprobs.h"
#include "learner/trainer.h"
#include "model/device.h"
#include "services/runtime/philox.h"

namespace e3 {
namespace {

const std::string kStarter = std::string(E3_SOURCE_DIR) + "/deploy/models/countdown-starter";

// Some sequences for a step.
std::vector<TrainingSequence> Batch(int64_t step) {
  PhiloxStream random(5, static_cast<uint64_t>(step));
  std::vector<TrainingSequence> sequences(7);
  for (TrainingSequence& s : sequences) {
    for (int64_t n = random.Between(1, 9); n > 0; --n)
      s.prompt.push_back(static_cast<uint32_t>(random.Below(265)));
    for (int64_t n = random.Between(1, 50); n > 0; --n)
      s.response.push_back(static_cast<uint32_t>(random.Below(265)));
  }
  return sequences;
}

v1::SftTraining Settings() {
  v1::SftTraining t;
  t.set_steps(4);
  t.set_micro_batch_tokens(100000);
  t.set_learning_rate(1e-3);
  t.set_min_ratio(1);
  t.set_beta1(0.9);
  t.set_beta2(0.95);
  t.set_weight_decay(0.1);
  t.set_max_grad_norm(1);
  return t;
}

struct Trained {
  std::vector<float> parameters;
  std::vector<double> losses;
};

std::vector<float> Copy(const std::shared_ptr<const float>& values, int64_t n) {
  return {values.get(), values.get() + n};
}

// From `start` (none: the starter model) on; `states`, when given, takes the state after each step.
Trained Train(const v1::SftTraining& settings, const TrainerState* start = nullptr,
              std::vector<TrainerState>* states = nullptr, c10::Device device = c10::kCPU) {
  std::unique_ptr<Transformer> model = *Transformer::Load(kStarter, device);
  const int64_t n = model->layout().size();
  Trained result;
  auto done = [&](const SftProgress& p, const SftState& state_now) {
    result.losses.push_back(p.loss);
    if (states != nullptr) {
      const TrainerState state = state_now();
      states->push_back({state.updates, CopyFloats(state.parameters.get(), n),
                         CopyFloats(state.first_moment.get(), n),
                         CopyFloats(state.second_moment.get(), n), nullptr});
    }
    return absl::OkStatus();
  };
  const SftBatches batches = [](int64_t step) -> absl::StatusOr<std::vector<TrainingSequence>> {
    return Batch(step);
  };
  REQUIRE(
      RunSft(settings, start != nullptr ? *start : InitialState(*model), batches, done, model.get())
          .ok());
  result.parameters = Copy(ViewFloats(model->parameters()), n);
  return result;
}

double Distance(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += (a[i] - b[i]) * static_cast<double>(a[i] - b[i]);
  return std::sqrt(sum);
}

TEST_CASE("fine-tuning is the policy gradient on its own tokens with advantage 1") {
  const v1::SftTraining settings = Settings();
  const Trained sft = Train(settings);
  CHECK(sft.losses.back() < sft.losses.front());

  v1::Training training;
  training.set_micro_batch_tokens(100000);
  training.set_learning_rate(1e-3);
  training.set_beta1(0.9);
  training.set_beta2(0.95);
  training.set_epsilon(1e-8);
  training.set_weight_decay(0.1);
  training.set_max_grad_norm(1);
  training.set_clip_low(0.2);
  training.set_clip_high(0.2);
  training.set_dual_clip(3);
  Trainer trainer(*Transformer::Load(kStarter));
  const int64_t n = trainer.policy().layout().size();
  const std::vector<float> before = Copy(ViewFloats(trainer.policy().parameters()), n);
  for (int64_t step = 1; step <= settings.steps(); ++step) {
    std::vector<TrainingRollout> rollouts;
    double log_likelihood = 0, tokens = 0;
    for (const TrainingSequence& sequence : Batch(step)) {
      at::NoGradGuard no_grad;
      const at::Tensor logprobs =
          ForwardLogprobs(trainer.policy(), Pack({&sequence}), 1.0).logprobs;
      const float* values = logprobs.const_data_ptr<float>();
      rollouts.push_back({sequence, {values, values + logprobs.numel()}, /*advantage=*/1});
      for (int64_t i = 0; i < logprobs.numel(); ++i) log_likelihood += values[i];
      tokens += static_cast<double>(logprobs.numel());
    }
    CHECK(sft.losses[static_cast<size_t>(step - 1)] == Approx(-log_likelihood / tokens));
    std::vector<const TrainingRollout*> pointers;
    for (const TrainingRollout& r : rollouts) pointers.push_back(&r);
    REQUIRE(trainer.Update(MakeMiniBatch(pointers, training), training, 1.0).ok());
  }
  const std::vector<float> rl = Copy(ViewFloats(trainer.policy().parameters()), n);
  CHECK(Distance(sft.parameters, rl) < 1e-3 * Distance(sft.parameters, before));
}

TEST_CASE("neither micro-batches nor recomputation change what is learned, and bf16 hardly") {
  const Trained plain = Train(Settings());
  v1::SftTraining settings = Settings();
  settings.set_recompute_activations(true);
  CHECK(Train(settings).parameters == plain.parameters);
  settings.set_micro_batch_tokens(60);
  const Trained pieces = Train(settings);
  for (size_t i = 0; i < plain.losses.size(); ++i)
    CHECK(pieces.losses[i] == Approx(plain.losses[i]).epsilon(1e-5));
  settings = Settings();
  settings.set_compute_dtype(v1::COMPUTE_DTYPE_BF16);
  const Trained rounded = Train(settings);
  CHECK(rounded.parameters != plain.parameters);
  for (size_t i = 0; i < plain.losses.size(); ++i)
    CHECK(rounded.losses[i] == Approx(plain.losses[i]).epsilon(0.02));
}

TEST_CASE("a fine-tuning that goes on from any of its states ends with the same bits") {
  std::vector<TrainerState> states;
  const Trained whole = Train(Settings(), nullptr, &states);
  REQUIRE(states.size() == 4);
  for (const TrainerState& state : states) {
    const Trained rest = Train(Settings(), &state);
    CHECK(rest.losses.size() == static_cast<size_t>(4 - state.updates));
    CHECK(rest.parameters == whole.parameters);
  }
}

TEST_CASE("every device does the same, with the optimizer there or on the host") {
  const char* name = std::getenv("E3_TEST_DEVICE");
  if (name == nullptr) return;  // of a machine with a GPU: tests/cuda.sh
  const absl::StatusOr<c10::Device> gpu = ParseDevice(name);
  REQUIRE(gpu.ok());
  const Trained host = Train(Settings());
  const std::vector<float> before = Copy(InitialState(**Transformer::Load(kStarter)).parameters,
                                         static_cast<int64_t>(host.parameters.size()));
  for (bool offload : {false, true}) {
    v1::SftTraining settings = Settings();
    settings.set_offload_optimizer(offload);
    std::vector<TrainerState> states;
    const Trained whole = Train(settings, nullptr, &states, *gpu);
    for (size_t i = 0; i < host.losses.size(); ++i)
      CHECK(whole.losses[i] == Approx(host.losses[i]).epsilon(1e-5));
    CHECK(Distance(whole.parameters, host.parameters) < 1e-3 * Distance(host.parameters, before));
    // The state goes to the host and back without a change.
    CHECK(Train(settings, &states[1], nullptr, *gpu).parameters == whole.parameters);
  }
}

}  // namespace
}  // namespace e3
