#include "rollout_server/model_runner.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_select.h>

#include <cstring>

#include "model/attention_kernel.h"
#include "model/transformer.h"

namespace e3 {
namespace {

// Matrix products give a row the same bits whatever the number of rows when that is 4, 8 or at
// least 12 (measured; see docs/performance.md), so that a rollout does not depend on what else is
// in the batch.
int64_t PaddedRows(int64_t rows) { return rows <= 4 ? 4 : rows <= 8 ? 8 : rows < 12 ? 12 : rows; }

}  // namespace

// Keys and values of all blocks, by layer: [layers, blocks, 16, num_kv_heads, head_dim].
struct TransformerRunner::Cache {
  at::Tensor keys, values;
  at::Tensor logits;
};

namespace {

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
      const size_t bytes = static_cast<size_t>(row) * sizeof(float);
      memcpy(layer_keys + batch_.slots[static_cast<size_t>(i)] * row,
             k.const_data_ptr<float>() + i * row, bytes);
      memcpy(layer_values + batch_.slots[static_cast<size_t>(i)] * row,
             v.const_data_ptr<float>() + i * row, bytes);
    }
    at::Tensor out = at::empty_like(q);
    // Rows that only pad the batch attend to nothing.
    memset(out.mutable_data_ptr<float>() + tokens * q_row, 0,
           static_cast<size_t>((q.size(0) - tokens) * q_row) * sizeof(float));
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

at::Tensor PaddedIds(const std::vector<int64_t>& ids, int64_t rows) {
  at::Tensor tensor = at::empty({rows}, at::kLong);
  int64_t* out = tensor.mutable_data_ptr<int64_t>();
  std::copy(ids.begin(), ids.end(), out);
  std::fill(out + ids.size(), out + rows, 0);
  return tensor;
}

}  // namespace

TransformerRunner::TransformerRunner(const Transformer* model, int32_t num_blocks)
    : model_(model), cache_(std::make_unique<Cache>()) {
  const ModelConfig& c = model->config();
  cache_->keys =
      at::empty({c.num_layers, num_blocks, kKvBlockRows, c.num_kv_heads, c.head_dim}, at::kFloat);
  cache_->values = at::empty_like(cache_->keys);
}

TransformerRunner::~TransformerRunner() = default;

int64_t TransformerRunner::vocab_size() const { return model_->config().vocab_size; }

int64_t TransformerRunner::BlockBytes(const Transformer& model) {
  const ModelConfig& c = model.config();
  return 2 * c.num_layers * kKvBlockRows * c.num_kv_heads * c.head_dim *
         static_cast<int64_t>(sizeof(float));
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
  const int64_t rows = PaddedRows(static_cast<int64_t>(batch.token_ids.size()));
  PagedAttention attention(batch, keys, values, layer_stride);
  at::Tensor hidden =
      model_->Hidden(PaddedIds(batch.token_ids, rows), PaddedIds(batch.positions, rows), attention);
  const int64_t wanted = static_cast<int64_t>(batch.logit_rows.size());
  if (wanted == 0) return nullptr;
  cache_->logits =
      model_->Logits(at::index_select(hidden, 0, PaddedIds(batch.logit_rows, PaddedRows(wanted))));
  return cache_->logits.const_data_ptr<float>();
}

}  // namespace e3
