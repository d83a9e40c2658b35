#include "model/operators.h"

#include <ATen/ops/abs.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <catch2/catch.hpp>
#include <functional>
#include <vector>

namespace e3 {
namespace {

at::Tensor Random(std::vector<int64_t> shape) {
  return at::empty(shape, at::kFloat).uniform_(-1, 1).set_requires_grad(true);
}

// The result and the gradients of `inputs`, of a random but fixed weighting of the result.
std::vector<at::Tensor> Run(const std::function<at::Tensor()>& f,
                            const std::vector<at::Tensor>& inputs) {
  for (const at::Tensor& input : inputs) input.mutable_grad() = at::Tensor();
  at::Tensor y = f();
  at::Tensor weights = at::arange(y.numel(), at::kFloat).mul(0.37).sin().view(y.sizes());
  (y * weights).sum().backward();
  std::vector<at::Tensor> results = {y.detach()};
  for (const at::Tensor& input : inputs) results.push_back(input.grad().clone());
  return results;
}

// The fused operator against the one composed of LibTorch's.
void Compare(const std::function<at::Tensor()>& f, const std::vector<at::Tensor>& inputs) {
  std::vector<at::Tensor> fused = Run(f, inputs), composed;
  {
    ComposedOperatorsGuard guard;
    composed = Run(f, inputs);
  }
  for (size_t i = 0; i < fused.size(); ++i) {
    INFO("result " << i << " (0: forward, then gradients)");
    const float scale = composed[i].abs().max().item<float>();
    CHECK((fused[i] - composed[i]).abs().max().item<float>() <= 3e-6f * scale);
  }
}

TEST_CASE("fused operators and their gradients are those of LibTorch's own") {
  for (int64_t rows : {1, 5, 70}) {
    Projection p{Random({41, 24}), Random({41}), {}, {}};
    p.Pack();
    at::Tensor x = Random({rows, 24});
    Compare([&] { return Linear(x, p); }, {x, p.weight, p.bias});
    at::Tensor weight = Random({24});
    Compare([&] { return RmsNorm(x, weight, 1e-5); }, {x, weight});
    at::Tensor y = Random({rows, 24});
    Compare(
        [&] {
          SumAndNorm both = AddRmsNorm(x, y, weight, 1e-5);
          return at::cat({both.sum, both.normalised}, 1);
        },
        {x, y, weight});
    at::Tensor gate_up = Random({rows, 48});
    Compare([&] { return SwiGlu(gate_up * 9); }, {gate_up});

    Rotary rotary({1.0f, 0.3f, 0.05f, 0.002f}, 4096);
    at::Tensor qkv = Random({rows, 56}), q_norm = Random({8}), k_norm = Random({8});
    at::Tensor positions = at::arange(rows, at::kLong) * 31;
    auto heads = [&](const at::Tensor& query_norm, const at::Tensor& key_norm) {
      Heads h = SplitHeads(qkv, {3, 2, 8}, query_norm, key_norm, 1e-6, positions, rotary);
      return at::cat({h.query, h.key, h.value}, 1);
    };
    Compare([&] { return heads(q_norm, k_norm); }, {qkv, q_norm, k_norm});
    Compare([&] { return heads({}, {}); }, {qkv});
  }
}

}  // namespace
}  // namespace e3
