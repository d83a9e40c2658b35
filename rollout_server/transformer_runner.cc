#include "rollout_server/transformer_runner.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_select.h>

#include <cstring>

#include "model/attention_kernel.h"
#include "model/transformer.h"

namespace e3 {
// Keys and values of all blocks, by layer: [layers, blocks, BlockFloats].
struct TransformerRunner::Cache {
  at::Tensor keys, values;
  at::Tensor logits;
};

namespace {

HeadShape Heads(const ModelConfig& c) { return {c.num_heads, c.num_kv_heads, c.head_dim}; }

// Attention that stores the batch's keys and values in the cache and attends to what is there.
class PagedAttention final : public Attention {
 public:
  PagedAttention(const Batch& batch, float* keys, float* values, int64_t layer_stride)
      : batch_(batch), keys_(keys), values_(values), layer_stride_(layer_stride) {}

  at::Tensor Attend(int64_t layer, const at::Tensor& query, const at::Tensor& key,
                    const at::Tensor& value) override {
    at::Tensor q = query.contiguous(), k = key.contiguous(), v = value.contiguous();
    HeadShape shape{q.size(1), k.size(1), q.size(2)};
    const int64_t row = shape.num_kv_heads * shape.head_dim,
                  q_row = shape.num_heads * shape.head_dim;
    float* layer_keys = keys_ + layer * layer_stride_;
    float* layer_values = values_ + layer * layer_stride_;
    const int64_t tokens = static_cast<int64_t>(batch_.token_ids.size());
    for (int64_t i = 0; i < tokens; ++i) {
      StoreKeyValue(shape, k.const_data_ptr<float>() + i * row, v.const_data_ptr<float>() + i * row,
                    batch_.slots[static_cast<size_t>(i)], layer_keys, layer_values);
    }
    at::Tensor out = at::empty_like(q);
    std::vector<QueryRow> rows(static_cast<size_t>(tokens));
    for (int64_t i = 0; i < tokens; ++i) {
      const size_t t = static_cast<size_t>(i);
      rows[t] = {q.const_data_ptr<float>() + i * q_row,
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

at::Tensor Ids(const std::vector<int64_t>& ids) {
  return at::from_blob(const_cast<int64_t*>(ids.data()), {static_cast<int64_t>(ids.size())},
                       at::kLong);
}

}  // namespace

TransformerRunner::TransformerRunner(const Transformer* model, int32_t num_blocks)
    : model_(model), cache_(std::make_unique<Cache>()) {
  const ModelConfig& c = model->config();
  cache_->keys = at::empty({c.num_layers, num_blocks, BlockFloats(Heads(c))}, at::kFloat);
  cache_->values = at::empty_like(cache_->keys);
}

TransformerRunner::~TransformerRunner() = default;

int64_t TransformerRunner::vocab_size() const { return model_->config().vocab_size; }

int64_t TransformerRunner::BlockBytes(const Transformer& model) {
  const ModelConfig& c = model.config();
  return 2 * c.num_layers * BlockFloats(Heads(c)) * static_cast<int64_t>(sizeof(float));
}

const float* TransformerRunner::Run(const Batch& batch) {
  at::NoGradGuard no_grad;
  const int64_t layer_stride = cache_->keys.stride(0), block_stride = cache_->keys.stride(1);
  float* keys = cache_->keys.mutable_data_ptr<float>();
  float* values = cache_->values.mutable_data_ptr<float>();
  for (const BlockCopy& copy : batch.copies) {
    for (int64_t layer = 0; layer < model_->config().num_layers; ++layer) {
      for (float* base : {keys, values}) {
        memcpy(base + layer * layer_stride + copy.to * block_stride,
               base + layer * layer_stride + copy.from * block_stride,
               static_cast<size_t>(block_stride) * sizeof(float));
      }
    }
  }
  PagedAttention attention(batch, keys, values, layer_stride);
  at::Tensor hidden = model_->Hidden(Ids(batch.token_ids), Ids(batch.positions), attention);
  if (batch.logit_rows.empty()) return nullptr;
  cache_->logits = model_->Logits(at::index_select(hidden, 0, Ids(batch.logit_rows)));
  return cache_->logits.const_data_ptr<float>();
}

}  // namespace e3
