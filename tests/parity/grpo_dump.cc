// grpo_dump POLICY REFERENCE BATCH.json OUT.safetensors DEVICE: the gradients of one
// Trainer::Update, for tests/parity/grpo.py.
#include <iostream>

#include "learner/trainer.h"
#include "model/device.h"
#include "nlohmann/json.hpp"
#include "services/runtime/files.h"

int main(int argc, char** argv) {
  if (argc != 6) return 2;
  auto device = e3::ParseDevice(argv[5]);
  if (!device.ok()) {
    std::cerr << device.status() << "\n";
    return 1;
  }
  auto policy = e3::Transformer::Load(argv[1], *device);
  auto reference = e3::Transformer::Load(argv[2]);
  auto text = e3::ReadFile(argv[3]);
  if (!policy.ok() || !reference.ok() || !text.ok()) {
    std::cerr << policy.status() << reference.status() << text.status() << "\n";
    return 1;
  }
  nlohmann::json json = nlohmann::json::parse(*text);
  const auto& o = json["options"];
  e3::v1::Training t;
  t.set_micro_batch_tokens(o["micro"]);
  t.set_beta1(0.9);
  t.set_beta2(0.999);
  t.set_epsilon(1e-8);
  t.set_clip_low(o["clip_low"]);
  t.set_clip_high(o["clip_high"]);
  t.set_dual_clip(o["dual_clip"]);
  t.set_kl_coef(o["kl_coef"]);
  t.set_entropy_coef(o["entropy_coef"]);
  t.set_kl_estimator(static_cast<e3::v1::KlEstimator>(o["kl"].get<int>() % 3));  // k3 is 0
  t.set_loss_aggregation(o["sequence_mean"] ? e3::v1::LOSS_AGGREGATION_SEQUENCE_MEAN
                                            : e3::v1::LOSS_AGGREGATION_TOKEN_MEAN);
  t.set_recompute_activations(o["recompute"]);
  t.set_advantage_mask(o["mask"] ? e3::v1::ADVANTAGE_MASK_NEGATIVE : e3::v1::ADVANTAGE_MASK_NONE);
  std::vector<e3::TrainingRollout> rollouts;
  for (const auto& r : json["rollouts"])
    rollouts.push_back({{r["prompt"], r["response"]}, r["old_logprobs"], r["advantage"]});
  std::vector<const e3::TrainingRollout*> pointers;
  for (const auto& r : rollouts) pointers.push_back(&r);

  e3::Trainer trainer(*std::move(policy));
  e3::TrainerState state = e3::InitialState(trainer.policy());
  state.reference = e3::CopyFloats((*reference)->parameters(), (*reference)->layout().size());
  trainer.Restore(state);
  auto statistics = trainer.Update(e3::MakeMiniBatch(pointers, t), t, o["temperature"]);
  const at::Tensor gradients = trainer.policy().HostGradients();
  std::vector<e3::TensorToWrite> tensors;
  for (const e3::ParameterSlot& slot : trainer.policy().layout().slots()) {
    tensors.push_back({slot.name, slot.shape, e3::Dtype::kFloat32,
                       gradients.const_data_ptr<float>() + slot.offset});
  }
  if (absl::Status status = e3::WriteSafetensors(argv[4], tensors, {}); !status.ok()) {
    std::cerr << status << "\n";
    return 1;
  }
  std::cout << nlohmann::json{{"loss", statistics->loss}} << "\n";
  return 0;
}
