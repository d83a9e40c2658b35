#include "learner/policy_loss.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <optional>

#include "absl/strings/match.h"
#include "learner/checkpoint.h"
#include "learner/trainer.h"
#include "model/device.h"
#include "services/runtime/files.h"
#include "services/runtime/philox.h"

namespace e3 {
namespace {

const std::string kStarter = std::string(E3_SOURCE_DIR) + "/deploy/models/countdown-starter";

at::Tensor T(float x) { return at::tensor({x}); }

double Loss(float logp, float old, float advantage, double low, double high) {
  PolicyLossOptions o;
  o.clip_low = low;
  o.clip_high = high;
  return TokenPolicyLoss(T(logp), T(old), T(advantage), o).item<float>();
}

TEST_CASE("golden values of the clipped policy loss") {
  CHECK(Loss(-0.2f, -1, 1.5f, .2, .5) == Approx(-2.25).margin(1e-6));
  CHECK(Loss(-0.2f, -1, 1.5f, .2, .35) == Approx(-2.025).margin(1e-6));
  CHECK(Loss(-0.2f, -1, 1.5f, .2, .2) == Approx(-1.8).margin(1e-6));
  CHECK(Loss(-0.2f, -1, -0.5f, .2, .2) == Approx(1.112770).margin(1e-6));
  CHECK(Loss(-0.5f, -2, -0.5f, .2, .2) == Approx(1.5).margin(1e-6));
  CHECK(Loss(-1.5f, -1, -0.5f, .2, .2) == Approx(0.4).margin(1e-6));
  CHECK(Loss(-1.5f, -1, 1.5f, .2, .2) == Approx(-0.909796).margin(1e-6));
}

TEST_CASE("golden values of the estimates of KL") {
  auto kl = [](float ref, KlEstimator estimator) {
    return TokenKl(T(-1), T(ref), estimator).item<float>();
  };
  CHECK(kl(-1.5f, KlEstimator::kK3) == Approx(0.106531).margin(1e-6));
  CHECK(kl(-0.5f, KlEstimator::kK3) == Approx(0.148721).margin(1e-6));
  CHECK(kl(-4, KlEstimator::kK3) == Approx(2.049787).margin(1e-6));
  CHECK(kl(3, KlEstimator::kK3) == Approx(10).margin(1e-6));
  CHECK(kl(-1.5f, KlEstimator::kK1) == Approx(0.5).margin(1e-6));
  CHECK(kl(-1.5f, KlEstimator::kK2) == Approx(0.125).margin(1e-6));
}

TEST_CASE("the weights of a mini-batch sum to one, over tokens, responses, or what is better") {
  const std::vector<std::pair<double, double>> responses = {
      {5, 1}, {20, -1}, {7, 0}, {0, 2}, {3, 2}};
  MiniBatchCounts counts;
  for (auto [tokens, advantage] : responses) counts.Add(tokens, advantage);
  for (bool mask : {false, true}) {
    for (bool sequences : {false, true}) {
      double sum = 0, policy = 0, first = 0, last = 0;
      for (auto [tokens, advantage] : responses) {
        if (tokens == 0) continue;
        sum += tokens * TokenWeight(counts, {mask, sequences}, tokens);
        const double weight = PolicyTokenWeight(counts, {mask, sequences}, tokens, advantage);
        policy += tokens * weight;
        if (tokens == 5) first = weight;
        if (tokens == 3) last = weight;
        CHECK((weight == 0) == (mask && advantage <= 0));
      }
      CHECK(sum == Approx(1));
      CHECK(policy == Approx(1));
      CHECK(first * (sequences ? 5 : 1) == Approx(last * (sequences ? 3 : 1)));
    }
  }
}

std::vector<TrainingRollout> Rollouts() {
  std::vector<TrainingRollout> rollouts;
  PhiloxStream random(3);
  for (int i = 0; i < 9; ++i) {
    TrainingRollout r;
    for (int64_t n = random.Between(1, 9); n > 0; --n)
      r.sequence.prompt.push_back(static_cast<uint32_t>(random.Below(265)));
    for (int64_t n = random.Between(1, 40); n > 0; --n) {
      r.sequence.response.push_back(static_cast<uint32_t>(random.Below(265)));
      r.old_logprobs.push_back(static_cast<float>(-6 - random.Uniform()));
    }
    r.advantage = i % 3 == 0 ? 1.4 : i % 3 == 1 ? -0.7 : 0;
    rollouts.push_back(r);
  }
  return rollouts;
}

v1::Training Settings() {
  v1::Training t;
  t.set_micro_batch_tokens(100000);
  t.set_learning_rate(1e-3);
  t.set_beta1(0.9);
  t.set_beta2(0.999);
  t.set_epsilon(1e-8);
  t.set_max_grad_norm(0);
  t.set_clip_low(0.2);
  t.set_clip_high(0.3);
  t.set_dual_clip(3);
  return t;
}

std::vector<float> GradientAfter(const v1::Training& settings, c10::Device device = c10::kCPU) {
  Trainer trainer(*Transformer::Load(kStarter, device));
  std::vector<TrainingRollout> rollouts = Rollouts();
  std::vector<const TrainingRollout*> pointers;
  for (const TrainingRollout& r : rollouts) pointers.push_back(&r);
  // The reference differs from the policy, so that KL has a gradient.
  TrainerState state = InitialState(trainer.policy());
  std::vector<float> reference(state.reference.get(),
                               state.reference.get() + trainer.policy().layout().size());
  for (float& x : reference) x *= 1.05f;
  state.reference = CopyFloats(reference.data(), trainer.policy().layout().size());
  trainer.Restore(state);
  REQUIRE(trainer.Update(MakeMiniBatch(pointers, settings), settings, 0.9).ok());
  const at::Tensor gradients = trainer.policy().HostGradients();
  const float* floats = gradients.const_data_ptr<float>();
  return {floats, floats + trainer.policy().layout().size()};
}

double RelativeDifference(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += (a[i] - b[i]) * static_cast<double>(a[i] - b[i]);
    norm += static_cast<double>(a[i]) * a[i];
  }
  return std::sqrt(difference / norm);
}

TEST_CASE("micro-batching changes nothing but rounding") {
  for (int variant = 0; variant < 4; ++variant) {
    v1::Training settings = Settings();
    if (variant == 1) settings.set_advantage_mask(v1::ADVANTAGE_MASK_NEGATIVE);
    if (variant == 2) {
      settings.set_kl_coef(0.01);
      settings.set_entropy_coef(0.02);
    }
    if (variant == 3) settings.set_loss_aggregation(v1::LOSS_AGGREGATION_SEQUENCE_MEAN);
    std::vector<float> whole = GradientAfter(settings);
    settings.set_micro_batch_tokens(30);
    CHECK(RelativeDifference(whole, GradientAfter(settings)) < 1e-5);
  }
}

// E3_TEST_DEVICE=cuda compares a GPU's gradients; without, those of LibTorch's operators on the
// CPU.
TEST_CASE("every device and dtype of products gives the same gradients, up to rounding") {
  const char* name = std::getenv("E3_TEST_DEVICE");
  auto device = ParseDevice(name == nullptr ? "cpu" : name);
  REQUIRE(device.ok());
  v1::Training settings = Settings();
  settings.set_kl_coef(0.01);
  settings.set_entropy_coef(0.02);
  // A ratio that rounding moves over a clip's bound would be another gradient.
  settings.set_clip_low(1);
  settings.set_clip_high(1e9);
  settings.set_dual_clip(1e9);
  const std::vector<float> exact = GradientAfter(settings);
  auto difference = [&](v1::ComputeDtype dtype, bool composed) {
    std::optional<ComposedOperatorsGuard> guard;
    if (composed) guard.emplace();
    v1::Training changed = settings;
    changed.set_compute_dtype(dtype);
    return RelativeDifference(exact, GradientAfter(changed, *device));
  };
  CHECK(difference(v1::COMPUTE_DTYPE_FP32, true) < 2e-5);
  for (bool composed : {false, true}) {
    const double rounded = difference(v1::COMPUTE_DTYPE_BF16, composed);
    INFO(rounded);
    CHECK(rounded > 1e-4);  // operands have eight bits
    CHECK(rounded < 0.06);
  }
}

TEST_CASE("GRPOMask sees only what was better than its group, and averages over just that") {
  v1::Training masked = Settings();
  masked.set_advantage_mask(v1::ADVANTAGE_MASK_NEGATIVE);
  std::vector<float> plain = GradientAfter(Settings()), mask = GradientAfter(masked);
  CHECK(RelativeDifference(plain, mask) > 0.1);
}

TEST_CASE("a gradient that is not finite changes nothing") {
  Trainer trainer(*Transformer::Load(kStarter));
  std::vector<TrainingRollout> rollouts = Rollouts();
  std::vector<const TrainingRollout*> pointers;
  for (const TrainingRollout& r : rollouts) pointers.push_back(&r);
  const int64_t n = trainer.policy().layout().size();
  const std::vector<float> before(trainer.policy().parameters(), trainer.policy().parameters() + n);
  rollouts[0].advantage = std::numeric_limits<double>::infinity();
  auto update = [&] { return trainer.Update(MakeMiniBatch(pointers, Settings()), Settings(), 1); };
  absl::StatusOr<UpdateStatistics> broken = update();
  REQUIRE(broken.ok());
  CHECK((broken->skipped && !broken->finite));
  CHECK(std::equal(before.begin(), before.end(), trainer.policy().parameters()));
  CHECK(trainer.optimizer().updates() == 0);
  rollouts[0].advantage = 1;
  CHECK(update()->finite);
  CHECK(trainer.optimizer().updates() == 1);
}

TEST_CASE("a checkpoint brings back exactly what was saved, and refuses what is torn or foreign") {
  char name[] = "/tmp/e3-checkpoint-XXXXXX";
  const std::string folder = std::string(mkdtemp(name)) + "/step-000003";
  Trainer trainer(*Transformer::Load(kStarter));
  std::vector<TrainingRollout> rollouts = Rollouts();
  std::vector<const TrainingRollout*> pointers;
  for (const TrainingRollout& r : rollouts) pointers.push_back(&r);
  REQUIRE(trainer.Update(MakeMiniBatch(pointers, Settings()), Settings(), 1).ok());
  REQUIRE(
      SaveCheckpoint(folder, "job", 3, kStarter, trainer.policy().layout(), *trainer.State(false))
          .ok());
  REQUIRE(trainer.Update(MakeMiniBatch(pointers, Settings()), Settings(), 1).ok());

  Trainer resumed(*Transformer::Load(kStarter));
  auto load = [&](const std::string& job) {
    return LoadCheckpoint(folder, job, resumed.policy().config(), resumed.policy().layout());
  };
  absl::StatusOr<Checkpoint> checkpoint = load("job");
  REQUIRE(checkpoint.ok());
  REQUIRE(checkpoint->step == 3);
  resumed.Restore(checkpoint->state);
  REQUIRE(resumed.Update(MakeMiniBatch(pointers, Settings()), Settings(), 1).ok());
  const size_t bytes = static_cast<size_t>(trainer.policy().layout().size()) * 4;
  CHECK(memcmp(resumed.policy().parameters(), trainer.policy().parameters(), bytes) == 0);

  CHECK(absl::IsFailedPrecondition(load("another").status()));
  for (const char* file : {"model.safetensors", "trainer.safetensors", "trainer.json"}) {
    const std::string path = folder + "/" + file, whole = *ReadFile(path);
    REQUIRE(WriteFileDurably(path, whole.substr(0, whole.size() / 2)).ok());
    CHECK(absl::IsDataLoss(load("job").status()));
    std::string flipped = whole;
    flipped[flipped.size() / 2] ^= 1;
    REQUIRE(WriteFileDurably(path, flipped).ok());
    CHECK(absl::IsDataLoss(load("job").status()));
    std::filesystem::remove(path);
    CHECK(absl::IsDataLoss(load("job").status()));
    REQUIRE(WriteFileDurably(path, whole).ok());
  }
  CHECK(load("job").ok());
  ModelConfig wider = resumed.policy().config();
  wider.intermediate_size += 8;
  const absl::Status other = LoadCheckpoint(folder, "job", wider, ParameterLayout(wider)).status();
  CHECK(absl::IsDataLoss(other));
  CHECK(absl::StrContains(other.message(), "gate_proj"));  // named
}

TEST_CASE("the newest checkpoints are kept, and the best") {
  char name[] = "/tmp/e3-checkpoints-XXXXXX";
  const std::string parent = mkdtemp(name);
  for (uint64_t step : {1, 2, 4, 6, 8, 10})
    REQUIRE(MakeFolders(CheckpointFolder(parent, step)).ok());
  // 10 is being written.
  CHECK(CheckpointStep(PruneCheckpoints(parent, /*written=*/8, /*keep=*/2, /*best=*/2)) == 6);
  std::vector<uint64_t> left;
  for (const std::string& folder : ListCheckpoints(parent)) left.push_back(CheckpointStep(folder));
  CHECK(left == std::vector<uint64_t>{10, 8, 6, 2});
  std::filesystem::remove_all(parent);
}

}  // namespace
}  // namespace e3
