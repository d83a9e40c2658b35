#include "model/transformer.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/square.h>
#include <ATen/ops/zeros_like.h>

#include "absl/strings/str_cat.h"
#include "services/runtime/status_macros.h"

namespace e3 {

template <typename F>
void Transformer::ForEachParameter(F f) {
  const ModelConfig& c = config_;
  const int64_t q = c.num_heads * c.head_dim, qkv = q + 2 * c.num_kv_heads * c.head_dim;
  f(embedding_, "model.embed_tokens.weight", std::vector<int64_t>{c.vocab_size, c.hidden_size});
  for (int64_t i = 0; i < c.num_layers; ++i) {
    Layer& layer = layers_[static_cast<size_t>(i)];
    std::string prefix = absl::StrCat("model.layers.", i, ".");
    f(layer.input_norm, prefix + "input_layernorm.weight", std::vector<int64_t>{c.hidden_size});
    f(layer.qkv, prefix + "self_attn.q_proj.weight", std::vector<int64_t>{qkv, c.hidden_size});
    if (c.attention_bias)
      f(layer.qkv_bias, prefix + "self_attn.q_proj.bias", std::vector<int64_t>{qkv});
    if (c.qk_norm) {
      f(layer.q_norm, prefix + "self_attn.q_norm.weight", std::vector<int64_t>{c.head_dim});
      f(layer.k_norm, prefix + "self_attn.k_norm.weight", std::vector<int64_t>{c.head_dim});
    }
    f(layer.o, prefix + "self_attn.o_proj.weight", std::vector<int64_t>{c.hidden_size, q});
    f(layer.post_norm, prefix + "post_attention_layernorm.weight",
      std::vector<int64_t>{c.hidden_size});
    f(layer.gate_up, prefix + "mlp.gate_proj.weight",
      std::vector<int64_t>{2 * c.intermediate_size, c.hidden_size});
    f(layer.down, prefix + "mlp.down_proj.weight",
      std::vector<int64_t>{c.hidden_size, c.intermediate_size});
  }
  f(norm_, "model.norm.weight", std::vector<int64_t>{c.hidden_size});
  if (!c.tie_word_embeddings)
    f(lm_head_, "lm_head.weight", std::vector<int64_t>{c.vocab_size, c.hidden_size});
}

Transformer::Transformer(const ModelConfig& config) : config_(config), layout_(config) {
  flat_ = at::empty({layout_.size()}, at::kFloat);
  layers_.resize(static_cast<size_t>(config.num_layers));
  ForEachParameter(
      [this](at::Tensor& parameter, const std::string& first, const std::vector<int64_t>& shape) {
        parameter = View(flat_, first, shape);
      });
  if (config.tie_word_embeddings) lm_head_ = embedding_;
  std::vector<float> frequencies = config.RopeInverseFrequencies();
  inverse_frequencies_ = at::empty({1, static_cast<int64_t>(frequencies.size())}, at::kFloat);
  std::copy(frequencies.begin(), frequencies.end(), inverse_frequencies_.mutable_data_ptr<float>());
}

absl::StatusOr<std::unique_ptr<Transformer>> Transformer::Load(const std::string& folder) {
  E3_ASSIGN_OR_RETURN(ModelConfig config, ModelConfig::Load(folder));
  auto model = std::make_unique<Transformer>(config);
  E3_RETURN_IF_ERROR(LoadParameters(folder, config, model->layout(), model->parameters()));
  return model;
}

at::Tensor Transformer::View(const at::Tensor& flat, const std::string& first,
                             std::vector<int64_t> shape) const {
  int64_t size = 1;
  for (int64_t d : shape) size *= d;
  return flat.narrow(0, layout_.slot(first).offset, size).view(shape);
}

void Transformer::EnableGradients() {
  flat_grad_ = at::zeros_like(flat_);
  ForEachParameter(
      [this](at::Tensor& parameter, const std::string& first, const std::vector<int64_t>& shape) {
        parameter = View(flat_, first, shape).detach().set_requires_grad(true);
        // Autograd adds into a gradient that is there in place, so it stays a view of the flat one.
        parameter.mutable_grad() = View(flat_grad_, first, shape);
      });
  if (config_.tie_word_embeddings) lm_head_ = embedding_;
}

void Transformer::ZeroGradients() { flat_grad_.zero_(); }

at::Tensor Transformer::RmsNorm(const at::Tensor& x, const at::Tensor& weight) const {
  at::Tensor mean_square = at::mean(at::square(x), {-1}, /*keepdim=*/true);
  return x * at::rsqrt(mean_square + config_.rms_norm_eps) * weight;
}

// Rotates the pairs (x[i], x[i + head_dim / 2]); x [N, heads, head_dim], cos and sin [N, 1,
// head_dim / 2].
at::Tensor Transformer::Rope(const at::Tensor& x, const at::Tensor& cos,
                             const at::Tensor& sin) const {
  const int64_t half = config_.head_dim / 2;
  at::Tensor first = x.narrow(-1, 0, half), second = x.narrow(-1, half, half);
  return at::cat({first * cos - second * sin, second * cos + first * sin}, -1);
}

at::Tensor Transformer::Hidden(const at::Tensor& token_ids, const at::Tensor& positions,
                               Attention& attention) const {
  const ModelConfig& c = config_;
  const int64_t n = token_ids.size(0);
  const int64_t q_size = c.num_heads * c.head_dim, kv_size = c.num_kv_heads * c.head_dim;
  at::Tensor angles = (positions.to(at::kFloat).unsqueeze(1) * inverse_frequencies_).unsqueeze(1);
  at::Tensor cos = angles.cos(), sin = angles.sin();

  at::Tensor x = at::embedding(embedding_, token_ids);
  for (int64_t i = 0; i < c.num_layers; ++i) {
    const Layer& layer = layers_[static_cast<size_t>(i)];
    at::Tensor qkv =
        at::linear(RmsNorm(x, layer.input_norm), layer.qkv,
                   c.attention_bias ? std::optional<at::Tensor>(layer.qkv_bias) : std::nullopt);
    at::Tensor query = qkv.narrow(1, 0, q_size).view({n, c.num_heads, c.head_dim});
    at::Tensor key = qkv.narrow(1, q_size, kv_size).view({n, c.num_kv_heads, c.head_dim});
    at::Tensor value =
        qkv.narrow(1, q_size + kv_size, kv_size).view({n, c.num_kv_heads, c.head_dim});
    if (c.qk_norm) {
      query = RmsNorm(query, layer.q_norm);
      key = RmsNorm(key, layer.k_norm);
    }
    at::Tensor attended = attention.Attend(i, Rope(query, cos, sin), Rope(key, cos, sin), value);
    x = x + at::linear(attended.view({n, q_size}), layer.o);

    at::Tensor gate_up = at::linear(RmsNorm(x, layer.post_norm), layer.gate_up);
    at::Tensor gate = gate_up.narrow(1, 0, c.intermediate_size);
    at::Tensor up = gate_up.narrow(1, c.intermediate_size, c.intermediate_size);
    x = x + at::linear(at::silu(gate) * up, layer.down);
  }
  return RmsNorm(x, norm_);
}

at::Tensor Transformer::Logits(const at::Tensor& hidden) const {
  return at::linear(hidden, lm_head_);
}

}  // namespace e3
