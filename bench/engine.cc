// bench_engine MODEL [NEW_TOKENS]: decoding of the engine at several batch sizes, against the
// matrix products of the same steps alone.
//
// The products are the ceiling that the processor sets in this run (processors differ): per step
// the q/k/v, output, gate/up, down and head products at the same number of rows. Prints a table;
// the ratio is what to compare between machines.
#include "rollout_server/engine.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>

#include <chrono>
#include <cstdlib>
#include <iostream>

#include "absl/strings/str_format.h"
#include "model/transformer.h"
#include "rollout_server/transformer_runner.h"

namespace e3 {
namespace {

using Clock = std::chrono::steady_clock;

double Seconds(Clock::time_point since) {
  return std::chrono::duration<double>(Clock::now() - since).count();
}

// Seconds of one step's products at `rows` rows.
double ProductSeconds(const Transformer& model, int64_t rows, int repeats) {
  const ModelConfig& c = model.config();
  const int64_t q = c.num_heads * c.head_dim, qkv = q + 2 * c.num_kv_heads * c.head_dim;
  auto matrix = [](int64_t m, int64_t n) { return at::empty({m, n}, at::kFloat).uniform_(-1, 1); };
  at::Tensor x = matrix(rows, c.hidden_size), attended = matrix(rows, q),
             hidden = matrix(rows, c.intermediate_size);
  at::Tensor head = matrix(c.vocab_size, c.hidden_size);
  std::vector<std::array<at::Tensor, 4>> layers;
  for (int64_t i = 0; i < c.num_layers; ++i) {
    layers.push_back({matrix(qkv, c.hidden_size), matrix(c.hidden_size, q),
                      matrix(2 * c.intermediate_size, c.hidden_size),
                      matrix(c.hidden_size, c.intermediate_size)});
  }
  Clock::time_point begin;
  for (int r = -1; r < repeats; ++r) {
    if (r == 0) begin = Clock::now();  // the first round warms up
    for (const auto& layer : layers) {
      at::linear(x, layer[0]);
      at::linear(attended, layer[1]);
      at::linear(x, layer[2]);
      at::linear(hidden, layer[3]);
    }
    at::linear(x, head);
  }
  return Seconds(begin) / repeats;
}

int Main(int argc, char** argv) {
  if (argc < 2) {
    std::cerr << "bench_engine MODEL [NEW_TOKENS]\n";
    return 2;
  }
  const int64_t new_tokens = argc > 2 ? std::atoll(argv[2]) : 64;
  at::NoGradGuard no_grad;
  auto model = Transformer::Load(argv[1]);
  if (!model.ok()) {
    std::cerr << model.status() << "\n";
    return 1;
  }
  std::cout << absl::StrFormat(
      "%d threads, %d new tokens after 64 of prompt\n%10s %12s %12s %14s %8s\n",
      at::get_num_threads(), new_tokens, "rollouts", "decode tok/s", "ms a step", "products tok/s",
      "ratio");
  for (int64_t n : {1, 8, 32, 128, 512}) {
    if (argc > 3 && n != std::atoll(argv[3])) continue;
    EngineLimits limits;
    limits.scheduler.max_sequences = n;
    limits.scheduler.max_batch_tokens = 4096;
    limits.num_blocks = static_cast<int32_t>(n * ((64 + new_tokens) / 16 + 2));
    limits.context_length = (*model)->config().context_length;
    TransformerRunner runner(model->get(), limits.num_blocks);
    Engine engine(limits, &runner);
    for (int64_t i = 0; i < n; ++i) {
      RolloutRequest request;
      request.id = static_cast<uint64_t>(i);
      for (int64_t t = 0; t < 64; ++t)
        request.prompt.push_back(
            static_cast<uint32_t>((i * 7 + t * 13) % (*model)->config().vocab_size));
      request.budget = new_tokens;
      request.seed = static_cast<uint64_t>(i);
      if (absl::Status status = engine.Add(request); !status.ok()) {
        std::cerr << status << "\n";
        return 1;
      }
    }
    // Decoding only: steps in which no prompt is computed.
    double seconds = 0;
    int64_t tokens = 0, steps = 0;
    while (!engine.idle()) {
      auto begin = Clock::now();
      size_t produced = engine.Step().size();
      if (engine.last_step().prefill_tokens > 0) continue;
      seconds += Seconds(begin);
      tokens += static_cast<int64_t>(produced);
      ++steps;
    }
    const int64_t rows = n <= 4 ? 4 : n;
    const double products =
        static_cast<double>(n) /
        ProductSeconds(
            **model, rows,
            static_cast<int>(std::max<int64_t>(3, 20 / ((*model)->config().num_layers / 4 + 1))));
    const double decode = static_cast<double>(tokens) / seconds;
    std::cout << absl::StrFormat("%10d %12.0f %12.2f %14.0f %8.2f", n, decode,
                                 1000 * seconds / static_cast<double>(std::max<int64_t>(1, steps)),
                                 products, decode / products)
              << std::endl;
  }
  return 0;
}

}  // namespace
}  // namespace e3

int main(int argc, char** argv) { return e3::Main(argc, argv); }
