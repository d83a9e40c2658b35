// bench_rollout MODEL PROMPT NEW N…: the engine with N rollouts of PROMPT + NEW tokens at once, as
// one JSON line for each N; bench/rollout/run.py puts it beside its peers.
//
// The ceilings are the matrix products of the same steps alone, at the same rows, in this run
// (processors differ): this project's packed products, and LibTorch's.
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <vector>

#include "model/transformer.h"
#include "nlohmann/json.hpp"
#include "rollout_server/engine.h"
#include "rollout_server/transformer_runner.h"

namespace e3 {
namespace {

double Seconds(Clock::time_point since) {
  return std::chrono::duration<double>(Clock::now() - since).count();
}

// The products of a step: each layer's four, with weights of their own, and the head.
class Products {
 public:
  explicit Products(const ModelConfig& c) {
    const int64_t q = c.num_heads * c.head_dim, qkv = q + 2 * c.num_kv_heads * c.head_dim;
    for (int64_t i = 0; i < c.num_layers; ++i) {
      Add(qkv, c.hidden_size);
      Add(c.hidden_size, q);
      Add(2 * c.intermediate_size, c.hidden_size);
      Add(c.hidden_size, c.intermediate_size);
    }
    Add(c.vocab_size, c.hidden_size);
  }
  // Seconds of one step at `rows` rows, in the mean as the engine's are.
  double Run(int64_t rows, bool packed) const {
    std::vector<at::Tensor> inputs, outputs;
    for (const Projection& p : weights_) {
      inputs.push_back(at::empty({rows, p.weight.size(1)}, at::kFloat).uniform_(-1, 1));
      outputs.push_back(at::empty({rows, p.weight.size(0)}, at::kFloat));
    }
    Clock::time_point begin;
    int repeat = -1;
    for (; repeat < 3 || Seconds(begin) < 2; ++repeat) {
      if (repeat == 0) begin = Clock::now();  // the first one warms up
      for (size_t i = 0; i < weights_.size(); ++i) {
        if (packed) {
          weights_[i].packed.Multiply(inputs[i].const_data_ptr<float>(), rows, nullptr,
                                      outputs[i].mutable_data_ptr<float>());
        } else {
          at::linear(inputs[i], weights_[i].weight);
        }
      }
    }
    return Seconds(begin) / repeat;
  }

 private:
  void Add(int64_t outputs, int64_t inputs) {
    Projection& p = weights_.emplace_back();
    p.weight = at::empty({outputs, inputs}, at::kFloat).uniform_(-1, 1);
    p.Pack();
  }
  std::vector<Projection> weights_;
};

absl::Status Measure(const Transformer& model, const Products& products, int64_t prompt,
                     int64_t new_tokens, int64_t n) {
  EngineLimits limits;
  limits.scheduler.max_sequences = n;
  limits.scheduler.max_batch_tokens = std::max<int64_t>(2048, n);
  limits.num_blocks = static_cast<int32_t>(n * ((prompt + new_tokens) / 16 + 2));
  limits.context_length = model.config().context_length;
  TransformerRunner runner(&model, limits.num_blocks);
  Engine engine(limits, &runner);
  const Clock::time_point begin = Clock::now();
  for (int64_t i = 0; i < n; ++i) {
    RolloutRequest request;
    request.id = static_cast<uint64_t>(i);
    for (int64_t t = 0; t < prompt; ++t)
      request.prompt.push_back(static_cast<uint32_t>((i * 7 + t * 13) % model.config().vocab_size));
    request.budget = new_tokens;
    request.seed = static_cast<uint64_t>(i);
    if (absl::Status status = engine.Add(request); !status.ok()) return status;
  }
  // Steps that only decode, by phase.
  double schedule = 0, forward = 0, sample = 0;
  int64_t tokens = 0, steps = 0;
  while (!engine.idle()) {
    engine.Step();
    const StepReport& r = engine.last_step();
    if (r.prefill_tokens > 0) continue;
    schedule += r.schedule_seconds;
    forward += r.forward_seconds;
    sample += r.sample_seconds;
    tokens += r.decode_tokens;
    ++steps;
  }
  const double whole = Seconds(begin), decode = schedule + forward + sample;
  const double rows = static_cast<double>(n);
  std::cout << nlohmann::ordered_json{{"rollouts", n},
                                      {"end_to_end", static_cast<double>(n * new_tokens) / whole},
                                      {"decode", static_cast<double>(tokens) / decode},
                                      {"steps_a_second", static_cast<double>(steps) / decode},
                                      {"schedule", schedule / decode},
                                      {"forward", forward / decode},
                                      {"sample", sample / decode},
                                      {"packed_products", rows / products.Run(n, true)},
                                      {"libtorch_products", rows / products.Run(n, false)}}
                   .dump()
            << std::endl;
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  if (argc < 5) {
    std::cerr << "bench_rollout MODEL PROMPT NEW N…\n";
    return 2;
  }
  at::NoGradGuard no_grad;
  auto model = Transformer::Load(argv[1]);
  if (!model.ok()) {
    std::cerr << model.status() << "\n";
    return 1;
  }
  const Products products((*model)->config());
  for (int i = 4; i < argc; ++i) {
    absl::Status status =
        Measure(**model, products, std::atoll(argv[2]), std::atoll(argv[3]), std::atoll(argv[i]));
    if (!status.ok()) {
      std::cerr << status << "\n";
      return 1;
    }
  }
  return 0;
}

}  // namespace
}  // namespace e3

int main(int argc, char** argv) { return e3::Main(argc, argv); }
