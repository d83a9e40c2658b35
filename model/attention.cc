#include "model/attention.h"

#include <ATen/ops/_efficient_attention_forward.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <numeric>

#include "model/attention_kernel.h"
#include "model/operators.h"

namespace e3 {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

HeadShape ShapeOf(const at::Tensor& query, const at::Tensor& key) {
  return {query.size(1), key.size(1), query.size(2)};
}

// Attention over packed sequences; `lse` [N, num_heads] is filled for the backward pass.
at::Tensor Forward(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                   const std::vector<int64_t>& offsets, at::Tensor& lse) {
  HeadShape shape = ShapeOf(query, key);
  at::Tensor out = at::empty_like(query);
  lse = at::empty({query.size(0), shape.num_heads}, query.options());
  const int64_t q_stride = shape.num_heads * shape.head_dim,
                kv_stride = shape.num_kv_heads * shape.head_dim;

  // A packed sequence is a paged one whose blocks follow each other.
  std::vector<int64_t> first_block = {0};
  int64_t most_blocks = 0;
  for (size_t s = 0; s + 1 < offsets.size(); ++s) {
    const int64_t blocks = (offsets[s + 1] - offsets[s] + kKvBlockRows - 1) / kKvBlockRows;
    most_blocks = std::max(most_blocks, blocks);
    first_block.push_back(first_block.back() + blocks);
  }
  at::Tensor keys = at::empty({first_block.back(), BlockFloats(shape)}, query.options());
  at::Tensor values = at::empty_like(keys);
  std::vector<int32_t> block_table(static_cast<size_t>(most_blocks));
  std::iota(block_table.begin(), block_table.end(), 0);
  std::vector<QueryRow> rows;
  rows.reserve(static_cast<size_t>(query.size(0)));
  for (size_t s = 0; s + 1 < offsets.size(); ++s) {
    const int64_t start = first_block[s] * BlockFloats(shape);
    float* k = keys.mutable_data_ptr<float>() + start;
    float* v = values.mutable_data_ptr<float>() + start;
    for (int64_t i = offsets[s]; i < offsets[s + 1]; ++i) {
      rows.push_back({query.const_data_ptr<float>() + i * q_stride,
                      key.const_data_ptr<float>() + i * kv_stride,
                      value.const_data_ptr<float>() + i * kv_stride,
                      {k, v, block_table.data()},
                      i - offsets[s] + 1,
                      out.mutable_data_ptr<float>() + i * q_stride,
                      lse.mutable_data_ptr<float>() + i * shape.num_heads});
    }
  }
  AttendRows(shape, rows);
  return out;
}

class PackedAttentionFunction : public torch::autograd::Function<PackedAttentionFunction> {
 public:
  static at::Tensor forward(AutogradContext* context, const at::Tensor& query,
                            const at::Tensor& key, const at::Tensor& value,
                            const std::vector<int64_t>& offsets) {
    at::Tensor lse;
    at::Tensor out = Forward(query, key, value, offsets, lse);
    context->save_for_backward({query, key, value, out, lse});
    context->saved_data["offsets"] = offsets;
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list d_outs) {
    variable_list saved = context->get_saved_variables();
    const at::Tensor &query = saved[0], &key = saved[1], &value = saved[2], &out = saved[3],
                     &lse = saved[4];
    at::Tensor d_out = d_outs[0].contiguous();
    at::Tensor d_query = at::empty_like(query), d_key = at::empty_like(key),
               d_value = at::empty_like(value);
    AttendBackward(ShapeOf(query, key), context->saved_data["offsets"].toIntVector(),
                   query.const_data_ptr<float>(), key.const_data_ptr<float>(),
                   value.const_data_ptr<float>(), out.const_data_ptr<float>(),
                   lse.const_data_ptr<float>(), d_out.const_data_ptr<float>(),
                   d_query.mutable_data_ptr<float>(), d_key.mutable_data_ptr<float>(),
                   d_value.mutable_data_ptr<float>());
    return {d_query, d_key, d_value, at::Tensor()};
  }
};

}  // namespace

namespace {

// Every query head with keys of its own: with shared ones the library's fp32 kernels that do not
// keep a matrix of all scores are not to be had.
at::Tensor Repeated(const at::Tensor& x, int64_t query_heads) {
  const int64_t shared = query_heads / x.size(1);
  return shared > 1 ? x.repeat_interleave(shared, 1) : x;
}

// LibTorch's kernels for packed sequences on a GPU: all of them at once, of whatever length.
at::Tensor GpuAttention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                        const at::Tensor& offsets, int64_t longest) {
  if (query.scalar_type() == at::kBFloat16) {
    return std::get<0>(at::_flash_attention_forward(query, key, value, offsets, offsets, longest,
                                                    longest, /*dropout_p=*/0.0, /*is_causal=*/true,
                                                    /*return_debug_mask=*/false));
  }
  constexpr int64_t kCausalFromTopLeft = 1;
  auto batch = [](const at::Tensor& x) { return x.unsqueeze(0); };
  const int64_t heads = query.size(1);
  return std::get<0>(at::_efficient_attention_forward(
                         batch(query), batch(Repeated(key, heads)), batch(Repeated(value, heads)),
                         /*bias=*/std::nullopt, offsets, offsets, longest, longest,
                         /*dropout_p=*/0.0, kCausalFromTopLeft, /*compute_log_sumexp=*/true))
      .squeeze(0);
}

// From LibTorch's own operators, sequence by sequence.
at::Tensor ComposedAttention(const at::Tensor& query, const at::Tensor& key,
                             const at::Tensor& value, const std::vector<int64_t>& offsets) {
  const at::Tensor keys = Repeated(key, query.size(1)), values = Repeated(value, query.size(1));
  std::vector<at::Tensor> outputs;
  for (size_t s = 0; s + 1 < offsets.size(); ++s) {
    auto heads = [&](const at::Tensor& x) {  // [1, heads, tokens, head_dim]
      return x.narrow(0, offsets[s], offsets[s + 1] - offsets[s]).transpose(0, 1).unsqueeze(0);
    };
    at::Tensor out = at::scaled_dot_product_attention(heads(query), heads(keys), heads(values),
                                                      std::nullopt, 0.0, /*is_causal=*/true);
    outputs.push_back(out.squeeze(0).transpose(0, 1));
  }
  return at::cat(outputs).contiguous();
}

}  // namespace

PackedCausalAttention::PackedCausalAttention(std::vector<int64_t> offsets, c10::ScalarType products)
    : offsets_(std::move(offsets)), products_(products) {}

at::Tensor PackedCausalAttention::Attend(int64_t, const at::Tensor& query, const at::Tensor& key,
                                         const at::Tensor& value) {
  if (!UsesFusedOperators(query)) {
    const bool rounded = products_ == at::kBFloat16;
    auto operand = [&](const at::Tensor& x) { return rounded ? x.to(at::kBFloat16) : x; };
    if (!query.is_cuda() || query.scalar_type() == at::kDouble) {
      return ComposedAttention(operand(query), operand(key), operand(value), offsets_)
          .to(query.scalar_type());
    }
    if (!on_device_.defined()) {
      at::Tensor offsets = at::empty({static_cast<int64_t>(offsets_.size())}, at::kInt);
      std::copy(offsets_.begin(), offsets_.end(), offsets.mutable_data_ptr<int32_t>());
      on_device_ = offsets.to(query.device());
    }
    int64_t longest = 0;
    for (size_t s = 1; s < offsets_.size(); ++s)
      longest = std::max(longest, offsets_[s] - offsets_[s - 1]);
    return GpuAttention(operand(query), operand(key), operand(value), on_device_, longest)
        .to(query.scalar_type());
  }
  return PackedAttentionFunction::apply(query.contiguous(), key.contiguous(), value.contiguous(),
                                        offsets_);
}

}  // namespace e3
