#include "model/transformer.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>

#include "absl/strings/str_cat.h"
#include "model/recompute.h"
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
    f(layer.qkv.weight, prefix + "self_attn.q_proj.weight",
      std::vector<int64_t>{qkv, c.hidden_size});
    if (c.attention_bias)
      f(layer.qkv.bias, prefix + "self_attn.q_proj.bias", std::vector<int64_t>{qkv});
    if (c.qk_norm) {
      f(layer.q_norm, prefix + "self_attn.q_norm.weight", std::vector<int64_t>{c.head_dim});
      f(layer.k_norm, prefix + "self_attn.k_norm.weight", std::vector<int64_t>{c.head_dim});
    }
    f(layer.o.weight, prefix + "self_attn.o_proj.weight", std::vector<int64_t>{c.hidden_size, q});
    f(layer.post_norm, prefix + "post_attention_layernorm.weight",
      std::vector<int64_t>{c.hidden_size});
    f(layer.gate_up.weight, prefix + "mlp.gate_proj.weight",
      std::vector<int64_t>{2 * c.intermediate_size, c.hidden_size});
    f(layer.down.weight, prefix + "mlp.down_proj.weight",
      std::vector<int64_t>{c.hidden_size, c.intermediate_size});
  }
  f(norm_, "model.norm.weight", std::vector<int64_t>{c.hidden_size});
  if (!c.tie_word_embeddings)
    f(lm_head_.weight, "lm_head.weight", std::vector<int64_t>{c.vocab_size, c.hidden_size});
}

template <typename F>
void Transformer::ForEachProjection(F f) {
  for (Layer& layer : layers_) {
    for (Projection* p : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down}) f(*p);
  }
  f(lm_head_);
}

namespace {

// Where the values of `flat` are on the host: itself, or memory of its size.
at::Tensor HostTwin(const at::Tensor& flat) {
  if (flat.is_cpu() && flat.scalar_type() == at::kFloat) return flat;
  return at::empty(flat.sizes(), at::TensorOptions(at::kFloat).pinned_memory(flat.is_cuda()));
}

}  // namespace

Transformer::Transformer(const ModelConfig& config, c10::Device device, c10::ScalarType dtype)
    : config_(config),
      layout_(config),
      rotary_(config.RopeInverseFrequencies(), config.context_length) {
  flat_ = at::empty({layout_.size()}, at::TensorOptions(device).dtype(dtype));
  master_ = HostTwin(flat_);
  layers_.resize(static_cast<size_t>(config.num_layers));
  ForEachParameter(
      [this](at::Tensor& parameter, const std::string& first, const std::vector<int64_t>& shape) {
        parameter = View(flat_, first, shape);
      });
  if (config.tie_word_embeddings) lm_head_.weight = embedding_;
}

absl::StatusOr<std::unique_ptr<Transformer>> Transformer::Load(const std::string& folder,
                                                               c10::Device device,
                                                               c10::ScalarType dtype) {
  E3_ASSIGN_OR_RETURN(ModelConfig config, ModelConfig::Load(folder));
  auto model = std::make_unique<Transformer>(config, device, dtype);
  absl::Status loaded;
  model->UpdateParameters([&](float* parameters) {
    loaded = LoadParameters(folder, config, model->layout(), parameters);
  });
  E3_RETURN_IF_ERROR(loaded);
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
  if (config_.tie_word_embeddings) lm_head_.weight = embedding_;
}

const at::Tensor& Transformer::HostGradients() {
  if (!host_grad_.defined()) host_grad_ = HostTwin(flat_grad_);
  if (!host_grad_.is_same(flat_grad_)) host_grad_.copy_(flat_grad_);
  return host_grad_;
}

void Transformer::ZeroGradients() { flat_grad_.zero_(); }

const at::Tensor& Transformer::master() const {
  if (std::exchange(master_stale_, false)) master_.copy_(flat_);
  return master_;
}

void Transformer::UpdateOnDevice(const std::function<void(const at::Tensor&)>& write) {
  write(flat_);
  master_stale_ = !master_.is_same(flat_);
  ForEachProjection([](Projection& p) { p.Pack(); });
}

void Transformer::UpdateParameters(const std::function<void(float*)>& write) {
  master();
  write(master_.mutable_data_ptr<float>());
  if (!master_.is_same(flat_)) flat_.copy_(master_);
  ForEachProjection([](Projection& p) { p.Pack(); });
}

void Transformer::MultiplyIn(c10::ScalarType dtype) {
  if (products_ == dtype) return;
  products_ = dtype;
  ForEachProjection([&](Projection& p) {
    // On the CPU LibTorch rounds the results of bf16 products as well, which logits cannot bear.
    const bool head = &p == &lm_head_;
    p.MultiplyIn(head && flat_.is_cpu() ? at::kFloat : dtype);
  });
}

at::Tensor Transformer::LayerOutput(int64_t index, const at::Tensor& x, const at::Tensor& positions,
                                    Attention& attention) const {
  const ModelConfig& c = config_;
  const Layer& layer = layers_[static_cast<size_t>(index)];
  const HeadShapes shapes{c.num_heads, c.num_kv_heads, c.head_dim};

  at::Tensor qkv = Linear(RmsNorm(x, layer.input_norm, c.rms_norm_eps), layer.qkv);
  const Heads heads =
      SplitHeads(qkv, shapes, layer.q_norm, layer.k_norm, c.rms_norm_eps, positions, rotary_);
  at::Tensor attended = attention.Attend(index, heads.query, heads.key, heads.value)
                            .view({x.size(0), c.num_heads * c.head_dim});
  auto [h, normalised] = AddRmsNorm(x, Linear(attended, layer.o), layer.post_norm, c.rms_norm_eps);
  at::Tensor gate_up = Linear(normalised, layer.gate_up);
  return h + Linear(SwiGlu(gate_up), layer.down);
}

std::pair<int64_t, int64_t> Transformer::LayerRange(int64_t index) const {
  auto begin = [&](int64_t i) {
    return layout_
        .slot(i < config_.num_layers ? absl::StrCat("model.layers.", i, ".input_layernorm.weight")
                                     : "model.norm.weight")
        .offset;
  };
  return {begin(index), begin(index + 1)};
}

void Transformer::WatchGradients(int64_t layer, const at::Tensor& x) const {
  if (!on_layer_gradients_ || !x.requires_grad()) return;
  x.register_hook([f = on_layer_gradients_, range = LayerRange(layer)](const at::Tensor&) {
    f(range.first, range.second);
  });
}

at::Tensor Transformer::Hidden(const at::Tensor& token_ids, const at::Tensor& positions,
                               Attention& attention) const {
  at::Tensor x = Embedding(embedding_, token_ids);
  for (int64_t i = 0; i < config_.num_layers; ++i) {
    WatchGradients(i, x);
    x = LayerOutput(i, x, positions, attention);
  }
  return RmsNorm(x, norm_, config_.rms_norm_eps);
}

at::Tensor Transformer::RecomputedHidden(const at::Tensor& token_ids, const at::Tensor& positions,
                                         std::shared_ptr<Attention> attention) const {
  at::Tensor x = Embedding(embedding_, token_ids);
  for (int64_t i = 0; i < config_.num_layers; ++i) {
    WatchGradients(i, x);
    x = Recomputed([this, i, positions, attention](
                       const at::Tensor& in) { return LayerOutput(i, in, positions, *attention); },
                   x);
  }
  return RmsNorm(x, norm_, config_.rms_norm_eps);
}

at::Tensor Transformer::Logits(const at::Tensor& hidden) const { return Linear(hidden, lm_head_); }

}  // namespace e3
