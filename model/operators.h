// The transformer's operators. On the CPU in fp32 they are the fused kernels of packed_matrix.h and
// row_kernels.h, whose bits depend on nothing but the row; elsewhere (CUDA, double precision) they
// are composed from LibTorch's own operators. Differentiable either way. Products may take their
// operands in bf16 (Projection::MultiplyIn), and are LibTorch's then.
#ifndef E3_MODEL_OPERATORS_H_
#define E3_MODEL_OPERATORS_H_

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>

#include <mutex>
#include <vector>

#include "model/packed_matrix.h"
#include "model/row_kernels.h"

namespace e3 {

// The weight [outputs, inputs] of a product, its bias [outputs] (undefined: none), and the packed
// copy that products on the CPU are made with.
struct Projection {
  at::Tensor weight;
  at::Tensor bias;
  PackedMatrix packed;  // empty where LibTorch makes the product
  at::Tensor bf16;      // the weight in bf16; undefined where products are made in its own dtype

  // Takes the weight's present values into the copy that products are made with.
  void Pack();
  // From now on products take their operands in `dtype`: the weight's own, or kBFloat16, summed up
  // in fp32 (and on the CPU rounded to bf16 again). Gradients are added up in fp32. Packs.
  void MultiplyIn(c10::ScalarType dtype);
};

// x [N, inputs] -> [N, outputs]. In the backward pass the gradient of the weight (a leaf) is added
// to its `grad` in place; `projection` must live until then.
at::Tensor Linear(const at::Tensor& x, const Projection& projection);

// The two halves of that backward pass, for functions that make their products themselves; d_y [N,
// outputs] and x are contiguous.
at::Tensor LinearInputGradient(const at::Tensor& d_y, const Projection& projection);
void AddLinearWeightGradient(const at::Tensor& x, const at::Tensor& d_y,
                             const Projection& projection);

// Rows `token_ids` (int64 [N]) of weight [vocabulary, dim], a leaf; its gradient is added in place.
at::Tensor Embedding(const at::Tensor& weight, const at::Tensor& token_ids);

// x [N, dim] / rms(x) * weight [dim].
at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double epsilon);

// Cosines and sines of the rotary embedding by position: the table of the fused operators, and for
// the composed ones the same numbers on the device. Thread-safe.
class Rotary {
 public:
  // `inverse_frequencies`: head_dim / 2; positions below `max_positions`.
  Rotary(const std::vector<float>& inverse_frequencies, int64_t max_positions);
  const RotaryTable& table() const { return table_; }
  // [N, 1, head_dim] for positions (int64 [N]): cosines, then sines. In `dtype`; always on the same
  // device.
  at::Tensor Rows(const at::Tensor& positions, c10::ScalarType dtype) const;

 private:
  RotaryTable table_;
  int64_t head_dim_, max_positions_;
  mutable std::once_flag once_;
  mutable at::Tensor rows_;  // [max_positions, 1, head_dim], made when first asked for
};

// x and y [N, dim]: their sum, and the RMS norm of it.
struct SumAndNorm {
  at::Tensor sum, normalised;
};
SumAndNorm AddRmsNorm(const at::Tensor& x, const at::Tensor& y, const at::Tensor& weight,
                      double epsilon);

// Of an attention layer: `queries` heads, then `keys` heads, then as many of values, side by side.
struct HeadShapes {
  int64_t queries;
  int64_t keys;
  int64_t head_dim;
};

// Queries [N, queries, head_dim], keys and values [N, keys, head_dim].
struct Heads {
  at::Tensor query, key, value;
};

// The heads of `qkv` [N, (queries + 2 keys) * head_dim]. Those of queries and keys are normalised
// with their norm [head_dim] (both undefined: not) and rotated by `positions` (int64 [N]).
Heads SplitHeads(const at::Tensor& qkv, const HeadShapes& shapes, const at::Tensor& query_norm,
                 const at::Tensor& key_norm, double epsilon, const at::Tensor& positions,
                 const Rotary& rotary);

// gate_up [N, 2 dim] -> silu(gate) * up, [N, dim].
at::Tensor SwiGlu(const at::Tensor& gate_up);

// Composes all operators from LibTorch's own, also on the CPU, while it lives: for tests of what
// runs on other devices. Of the calling thread.
class ComposedOperatorsGuard {
 public:
  ComposedOperatorsGuard();
  ~ComposedOperatorsGuard();

 private:
  bool before_;
};

// Whether the kernels of this project compute with `x`.
bool UsesFusedOperators(const at::Tensor& x);

}  // namespace e3

#endif  // E3_MODEL_OPERATORS_H_
