#include "rollout_server/transformer_runner.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_select.h>

#include "model/attention_kernel.h"
#include "model/transformer.h"
#include "rollout_server/paged_attention.h"

namespace e3 {

struct TransformerRunner::State {
  std::unique_ptr<KvCache> cache;
  at::Tensor logits;
};

TransformerRunner::TransformerRunner(const Transformer* model, int32_t num_blocks)
    : model_(model), state_(std::make_unique<State>()) {
  state_->cache = model->fused()
                      ? MakeFusedKvCache(model->config(), num_blocks)
                      : MakeComposedKvCache(model->config(), num_blocks, model->device());
}

TransformerRunner::~TransformerRunner() = default;

int64_t TransformerRunner::vocab_size() const { return model_->config().vocab_size; }

int64_t TransformerRunner::BlockBytes(const Transformer& model) {
  const ModelConfig& c = model.config();
  return 2 * c.num_layers * BlockFloats({c.num_heads, c.num_kv_heads, c.head_dim}) *
         static_cast<int64_t>(sizeof(float));
}

const float* TransformerRunner::Run(const Batch& batch) {
  at::NoGradGuard no_grad;
  auto ids = [&](const std::vector<int64_t>& values) {
    return at::from_blob(const_cast<int64_t*>(values.data()), {static_cast<int64_t>(values.size())},
                         at::kLong)
        .to(model_->device());
  };
  state_->cache->Copy(batch.copies);
  std::unique_ptr<Attention> attention = state_->cache->ForBatch(batch);
  at::Tensor hidden = model_->Hidden(ids(batch.token_ids), ids(batch.positions), *attention);
  if (batch.logit_rows.empty()) return nullptr;
  state_->logits = model_->Logits(at::index_select(hidden, 0, ids(batch.logit_rows))).cpu();
  return state_->logits.const_data_ptr<float>();
}

}  // namespace e3
