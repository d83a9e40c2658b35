// Attention as a plug of the transformer: what differs between training and inference is where keys
// and values live.
#ifndef E3_MODEL_ATTENTION_H_
#define E3_MODEL_ATTENTION_H_

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/config.h"

namespace e3 {

class Attention {
 public:
  virtual ~Attention() = default;
  // Causal attention of layer `layer` over N tokens: query [N, num_heads, head_dim], key and value
  // [N, num_kv_heads, head_dim], after normalisation and rotary embedding. Returns [N,
  // num_heads, head_dim].
  virtual at::Tensor Attend(int64_t layer, const at::Tensor& query, const at::Tensor& key,
                            const at::Tensor& value) = 0;
};

// For training and scoring: sequences packed one after the other without padding; differentiable.
class PackedCausalAttention final : public Attention {
 public:
  // Sequence s is tokens offsets[s] … offsets[s + 1] - 1; offsets start with 0 and end with N.
  // `products`: the dtype that the operands of products may be rounded to, where LibTorch computes.
  explicit PackedCausalAttention(std::vector<int64_t> offsets,
                                 c10::ScalarType products = c10::kFloat);
  at::Tensor Attend(int64_t layer, const at::Tensor& query, const at::Tensor& key,
                    const at::Tensor& value) override;

 private:
  std::vector<int64_t> offsets_;
  at::Tensor on_device_;  // the offsets (int32), where a GPU wants them
  c10::ScalarType products_;
};

}  // namespace e3

#endif  // E3_MODEL_ATTENTION_H_
