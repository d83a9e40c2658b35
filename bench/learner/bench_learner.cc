// bench_learner MODEL SEQUENCES TOKENS [recompute]: one update (forward, backward, clipped AdamW
// step) on SEQUENCES of TOKENS as one JSON line, with activation checkpointing if asked for;
// bench/learner/run.py puts it beside its peers.
//
// The ceilings are the matrix products of the same step alone, at the same rows, in this run
// (processors differ): this project's, and LibTorch's.
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mm.h>
#include <sys/resource.h>

#include <chrono>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <vector>

#include "learner/token_logprobs.h"
#include "learner/trainer.h"
#include "model/log_softmax.h"
#include "model/transformer.h"
#include "nlohmann/json.hpp"

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

// Seconds of a step's products: forward (again, where `recompute` says so) and both gradients.
double ProductSeconds(const ModelConfig& config, int64_t rows, bool recompute, bool packed) {
  double seconds = 0;
  for (const Shape& s : Products(config)) {
    // The head in chunks of rows, as the learner has it.
    const int64_t chunk = std::min(rows, LogitChunkRows(s.outputs));
    const int64_t forwards = s.times == 1 || recompute ? 2 : 1;
    at::Tensor x = at::empty({chunk, s.inputs}, at::kFloat).uniform_(-1, 1);
    at::Tensor y = at::empty({chunk, s.outputs}, at::kFloat).uniform_(-1, 1);
    at::Tensor gradient = at::empty({s.outputs, s.inputs}, at::kFloat).zero_();
    at::Tensor d_x = at::empty_like(x);
    Projection p;
    p.weight = at::empty({s.outputs, s.inputs}, at::kFloat).uniform_(-1, 1);
    p.Pack();
    const double one = Seconds([&] {
      for (int64_t i = 0; i < forwards; ++i) {
        if (packed) {
          p.packed.Multiply(x.const_data_ptr<float>(), chunk, nullptr, y.mutable_data_ptr<float>());
        } else {
          at::linear(x, p.weight);
        }
      }
      if (packed) {
        ProductInputGradient(y.const_data_ptr<float>(), chunk, p.weight.const_data_ptr<float>(),
                             s.outputs, s.inputs, d_x.mutable_data_ptr<float>());
        AddProductWeightGradient(y.const_data_ptr<float>(), x.const_data_ptr<float>(), chunk,
                                 s.outputs, s.inputs, gradient.mutable_data_ptr<float>());
      } else {
        y.mm(p.weight);
        gradient.addmm_(y.t(), x);
      }
    });
    seconds +=
        one * static_cast<double>(s.times) * static_cast<double>(rows) / static_cast<double>(chunk);
  }
  return seconds;
}

int Main(int argc, char** argv) {
  if (argc != 4 && argc != 5) {
    std::cerr << "bench_learner MODEL SEQUENCES TOKENS [recompute]\n";
    return 2;
  }
  const bool recompute = argc == 5;
  auto model = Transformer::Load(argv[1]);
  if (!model.ok()) {
    std::cerr << model.status() << "\n";
    return 1;
  }
  const ModelConfig config = (*model)->config();
  const int64_t sequences = std::atoll(argv[2]), length = std::atoll(argv[3]);
  std::vector<TrainingSequence> batch;
  for (int64_t s = 0; s < sequences; ++s) {
    TrainingSequence& sequence = batch.emplace_back();
    for (int64_t t = 0; t <= length; ++t) {
      (t == 0 ? sequence.prompt : sequence.response)
          .push_back(static_cast<uint32_t>((s * 7 + t * 13) % config.vocab_size));
    }
  }
  std::vector<const TrainingSequence*> pointers;
  for (const TrainingSequence& sequence : batch) pointers.push_back(&sequence);
  (*model)->EnableGradients();
  AdamW optimizer(&(*model)->layout());
  AdamWOptions options;
  options.learning_rate = 1e-6;
  double forward = 0, backward = 0;
  using Clock = std::chrono::steady_clock;
  auto since = [](Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
  };
  int steps = 0;
  const double seconds = Seconds([&] {
    (*model)->ZeroGradients();
    Clock::time_point begin = Clock::now();
    TokenLogprobs forwarded = ForwardLogprobs(**model, Pack(pointers), 1.0, recompute);
    forward += since(begin);
    begin = Clock::now();
    (forwarded.logprobs.sum() * (-1.0 / static_cast<double>(sequences * length))).backward();
    backward += since(begin);
    OptimizerStep(**model, optimizer, options, 1.0);
    ++steps;
  });
  const double peak = PeakMiB();
  const int64_t rows = sequences * length;
  const double tokens = static_cast<double>(rows);
  std::cout << nlohmann::ordered_json{{"tokens_per_second", tokens / seconds},
                                      {"forward", forward / steps / seconds},
                                      {"backward", backward / steps / seconds},
                                      {"peak_mib", peak},
                                      {"packed_products",
                                       tokens / ProductSeconds(config, rows, recompute, true)},
                                      {"libtorch_products",
                                       tokens / ProductSeconds(config, rows, recompute, false)}}
                   .dump()
            << std::endl;
  return 0;
}

}  // namespace
}  // namespace e3

int main(int argc, char** argv) { return e3::Main(argc, argv); }
