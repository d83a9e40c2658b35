// bench_learner MODEL: one update on rollouts of given lengths as one JSON line;
// bench/learner/run.py puts it beside its peers.
//
// The ceilings are the matrix products of the same step alone, at the same rows, in this run
// (processors differ): this project's, and LibTorch's.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <sys/resource.h>

#include <chrono>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "CLI/CLI.hpp"
#include "learner/memory_need.h"
#include "learner/trainer.h"
#include "model/device.h"
#include "model/log_softmax.h"
#include "model/transformer.h"
#include "nlohmann/json.hpp"
#include "services/jobs/job_file.h"

namespace e3 {
namespace {

// Seconds of f in the mean, after one call to warm up.
double Seconds(const std::function<void()>& f) {
  using Clock = std::chrono::steady_clock;
  f();
  const Clock::time_point begin = Clock::now();
  int calls = 0;
  double seconds = 0;
  while (calls < 3 || seconds < 3) {
    f();
    ++calls;
    seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  }
  return seconds / calls;
}

double PeakMiB() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

struct Shape {
  int64_t outputs, inputs, times;
};

std::vector<Shape> Products(const ModelConfig& c) {
  const int64_t q = c.num_heads * c.head_dim, qkv = q + 2 * c.num_kv_heads * c.head_dim;
  return {{qkv, c.hidden_size, c.num_layers},
          {c.hidden_size, q, c.num_layers},
          {2 * c.intermediate_size, c.hidden_size, c.num_layers},
          {c.hidden_size, c.intermediate_size, c.num_layers},
          // The head's logits are computed again in any case: they are never kept.
          {c.vocab_size, c.hidden_size, 1}};
}

// Seconds of a step's products: forward (again, where `recompute` says so) and both gradients;
// LibTorch's in fp32, or this project's with operands in `dtype`.
double ProductSeconds(const Transformer& model, int64_t rows, bool recompute, bool libtorch) {
  at::NoGradGuard no_grad;
  double seconds = 0;
  for (const Shape& s : Products(model.config())) {
    // The head in chunks of rows, as the learner has it.
    const int64_t chunk = std::min(rows, LogitChunkRows(s.outputs));
    const int64_t forwards = s.times == 1 || recompute ? 2 : 1;
    auto random = [&](int64_t n, int64_t m) {
      return at::empty({n, m}, at::TensorOptions(model.device()).dtype(at::kFloat)).uniform_(-1, 1);
    };
    const at::Tensor x = random(chunk, s.inputs), d_y = random(chunk, s.outputs);
    Projection p;
    p.weight = random(s.outputs, s.inputs);
    p.weight.mutable_grad() = random(s.outputs, s.inputs);
    p.MultiplyIn(model.products());
    const double one = Seconds([&] {
      for (int64_t i = 0; i < forwards; ++i) libtorch ? at::linear(x, p.weight) : Linear(x, p);
      libtorch ? d_y.mm(p.weight) : LinearInputGradient(d_y, p);
      if (libtorch) {
        p.weight.mutable_grad().addmm_(d_y.t(), x);
      } else {
        AddLinearWeightGradient(x, d_y, p);
      }
      p.weight.grad()[0][0].item<float>();  // a GPU is done
    });
    seconds +=
        one * static_cast<double>(s.times) * static_cast<double>(rows) / static_cast<double>(chunk);
  }
  return seconds;
}

// Rollouts of [prompt, response] tokens.
std::vector<TrainingRollout> Rollouts(const std::vector<std::pair<int64_t, int64_t>>& lengths,
                                      int64_t vocab_size) {
  std::vector<TrainingRollout> rollouts;
  for (const auto& [prompt, response] : lengths) {
    const auto s = static_cast<int64_t>(rollouts.size());
    TrainingRollout& rollout = rollouts.emplace_back();
    for (int64_t t = 0; t < prompt + response; ++t) {
      (t < prompt ? rollout.sequence.prompt : rollout.sequence.response)
          .push_back(static_cast<uint32_t>((s * 7 + t * 13) % vocab_size));
    }
    rollout.old_logprobs.assign(static_cast<size_t>(response), -1.0f);
    rollout.advantage = s % 2 == 0 ? 1 : -1;
  }
  return rollouts;
}

int Main(int argc, char** argv) {
  CLI::App app{"One update (forward, backward, clipped AdamW step) as one JSON line"};
  std::string folder, device_name = "cpu";
  int64_t micro_batch_tokens = int64_t{1} << 40;
  bool recompute = false, bf16 = false, only_update = false;
  app.add_option("model", folder, "A Hugging Face folder")->required();
  app.add_option("--micro-batch-tokens", micro_batch_tokens, "Default: all at once");
  app.add_flag("--recompute", recompute, "Activation checkpointing");
  app.add_flag("--bf16", bf16, "Products take their operands in bf16");
  app.add_flag("--only-update", only_update, "Without the ceilings: for a profile");
  app.add_option("--device", device_name, "cpu, cuda or cuda:N");
  app.footer("The rollouts come on standard input: a JSON array of [prompt, response] tokens.");
  CLI11_PARSE(app, argc, argv);
  std::vector<std::pair<int64_t, int64_t>> lengths = nlohmann::json::parse(std::cin);
  KeepFreedMemory();
  const auto device = ParseDevice(device_name);
  auto model = device.ok() ? Transformer::Load(folder, *device) : device.status();
  if (!model.ok()) {
    std::cerr << model.status() << "\n";
    return 1;
  }
  Trainer trainer(*std::move(model));
  const ModelConfig& config = trainer.policy().config();
  const std::vector<TrainingRollout> rollouts = Rollouts(lengths, config.vocab_size);

  v1::Training training = DefaultTraining();
  training.set_recompute_activations(recompute);
  training.set_micro_batch_tokens(micro_batch_tokens);
  training.set_compute_dtype(bf16 ? v1::COMPUTE_DTYPE_BF16 : v1::COMPUTE_DTYPE_FP32);
  std::vector<const TrainingRollout*> pointers;
  int64_t tokens = 0, longest = 0;
  for (const TrainingRollout& r : rollouts) {
    pointers.push_back(&r);
    tokens += r.sequence.length();
    longest = std::max(longest, r.sequence.length());
  }
  const MiniBatch batch = MakeMiniBatch(pointers, training);
  const double seconds = Seconds([&] {
    if (absl::Status done = trainer.Update(batch, training, 1).status(); !done.ok()) {
      std::cerr << done << "\n";
      std::exit(1);
    }
  });

  const bool on_gpu = !device->is_cpu();
  const double peak =
      on_gpu ? static_cast<double>(PeakDeviceMemory(*device)) / (1 << 20) : PeakMiB();
  const int64_t rows = std::min(tokens, micro_batch_tokens);
  training.set_micro_batch_tokens(rows);
  const MemoryNeed need =
      ComputeMemoryNeed(on_gpu ? MemoryOf::kGpu : MemoryOf::kHost, config, training, longest);
  auto rate = [&](bool libtorch) {
    return static_cast<double>(rows) / ProductSeconds(trainer.policy(), rows, recompute, libtorch);
  };
  nlohmann::ordered_json result = {{"tokens_per_second", static_cast<double>(tokens) / seconds},
                                   {"peak_mib", peak},
                                   {"needed_mib", need.total() >> 20}};
  if (!only_update) {
    result["own_products"] = rate(false);
    result["libtorch_products"] = rate(true);
  }
  std::cout << result.dump() << std::endl;
  return 0;
}

}  // namespace
}  // namespace e3

int main(int argc, char** argv) { return e3::Main(argc, argv); }
