#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>

#include "model/attention_kernel.h"
#include "model/huge_pages.h"
#include "rollout_server/paged_attention.h"

namespace e3 {
namespace {

class FusedAttention final : public Attention {
 public:
  FusedAttention(const Batch& batch, float* keys, float* values, int64_t layer_stride)
      : batch_(batch), keys_(keys), values_(values), layer_stride_(layer_stride) {}

  at::Tensor Attend(int64_t layer, const at::Tensor& query, const at::Tensor& key,
                    const at::Tensor& value) override {
    at::Tensor q = query.contiguous();
    const HeadShape shape{q.size(1), key.size(1), q.size(2)};
    const int64_t q_row = shape.num_heads * shape.head_dim;
    float* layer_keys = keys_ + layer * layer_stride_;
    float* layer_values = values_ + layer * layer_stride_;
    const int64_t tokens = q.size(0);
    at::Tensor out = at::empty_like(q);
    std::vector<QueryRow> rows(static_cast<size_t>(tokens));
    for (int64_t i = 0; i < tokens; ++i) {
      const size_t t = static_cast<size_t>(i);
      rows[t] = {q.const_data_ptr<float>() + i * q_row,
                 key.const_data_ptr<float>() + i * key.stride(0),
                 value.const_data_ptr<float>() + i * value.stride(0),
                 {layer_keys, layer_values, batch_.block_tables[t]},
                 batch_.positions[t] + 1,
                 out.mutable_data_ptr<float>() + i * q_row,
                 nullptr};
    }
    AttendRows(shape, rows);
    return out;
  }

 private:
  const Batch& batch_;
  float* keys_;
  float* values_;
  int64_t layer_stride_;
};

// [layers, blocks, BlockFloats].
class FusedKvCache final : public KvCache {
 public:
  FusedKvCache(const ModelConfig& c, int32_t num_blocks) {
    const HeadShape shape{c.num_heads, c.num_kv_heads, c.head_dim};
    keys_ = at::empty({c.num_layers, num_blocks, BlockFloats(shape)}, at::kFloat);
    values_ = at::empty_like(keys_);
    for (at::Tensor* tensor : {&keys_, &values_}) {
      AdviseHugePages(tensor->const_data_ptr(), tensor->nbytes());
      // The memory is had now, or not at all: a server does not run out of it later, nor stop for
      // it.
      tensor->zero_();
    }
  }
  void Copy(const std::vector<BlockCopy>& copies) override {
    const int64_t layer_stride = keys_.stride(0), block = keys_.stride(1);
    for (const BlockCopy& copy : copies) {
      for (int64_t layer = 0; layer < keys_.size(0); ++layer) {
        for (at::Tensor* tensor : {&keys_, &values_}) {
          float* base = tensor->mutable_data_ptr<float>() + layer * layer_stride;
          std::copy_n(base + copy.from * block, block, base + copy.to * block);
        }
      }
    }
  }
  std::unique_ptr<Attention> ForBatch(const Batch& batch) override {
    return std::make_unique<FusedAttention>(batch, keys_.mutable_data_ptr<float>(),
                                            values_.mutable_data_ptr<float>(), keys_.stride(0));
  }

 private:
  at::Tensor keys_, values_;
};

}  // namespace

std::unique_ptr<KvCache> MakeFusedKvCache(const ModelConfig& config, int32_t num_blocks) {
  return std::make_unique<FusedKvCache>(config, num_blocks);
}

}  // namespace e3
