// The decoder-only transformer of Qwen3, Qwen2.5, Llama 3 and SmolLM2; the same code trains and
// generates.
#ifndef E3_MODEL_TRANSFORMER_H_
#define E3_MODEL_TRANSFORMER_H_

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "model/attention.h"
#include "model/config.h"
#include "model/operators.h"
#include "model/parameters.h"
#include "model/row_kernels.h"

namespace e3 {

// Holds the parameters as views of one flat tensor, fp32 unless told otherwise, in the order of
// ParameterLayout; elsewhere than on the CPU beside an fp32 copy on the host, which checkpoints and
// publishing work with. Forward passes are const and thread-safe as long as nobody
// writes the parameters.
class Transformer {
 public:
  // Parameters are not initialised. On the CPU in fp32 the fused operators compute; elsewhere, and
  // in other dtypes, LibTorch's.
  explicit Transformer(const ModelConfig& config, c10::Device device = c10::kCPU,
                       c10::ScalarType dtype = c10::kFloat);
  // Configuration and parameters of a Hugging Face folder.
  static absl::StatusOr<std::unique_ptr<Transformer>> Load(const std::string& folder,
                                                           c10::Device device = c10::kCPU,
                                                           c10::ScalarType dtype = c10::kFloat);

  Transformer(const Transformer&) = delete;
  Transformer& operator=(const Transformer&) = delete;

  // Final hidden states after the last norm. token_ids and positions: int64 [N] on the model's
  // device. Returns [N, hidden_size].
  at::Tensor Hidden(const at::Tensor& token_ids, const at::Tensor& positions,
                    Attention& attention) const;
  // The same for training in less memory: the backward pass computes each layer again from its
  // input, which is all that is kept of it. The bits of result and gradients are the same.
  at::Tensor RecomputedHidden(const at::Tensor& token_ids, const at::Tensor& positions,
                              std::shared_ptr<Attention> attention) const;
  // hidden [M, hidden_size] -> [M, vocab_size].
  at::Tensor Logits(const at::Tensor& hidden) const;
  // The output embedding [vocab_size, hidden_size] (the input embedding when they are tied).
  const Projection& lm_head() const { return lm_head_; }

  c10::Device device() const { return flat_.device(); }
  // Whether it computes with this project's kernels, whose bits depend on nothing but the row.
  bool fused() const { return UsesFusedOperators(flat_); }
  const ModelConfig& config() const { return config_; }
  const ParameterLayout& layout() const { return layout_; }
  c10::ScalarType dtype() const { return flat_.scalar_type(); }
  // All parameters on the device, [layout().size()].
  const at::Tensor& flat_parameters() const { return flat_; }
  // The host's copy of all parameters: fp32 [layout().size()] on the CPU. Where the device's were
  // updated since, they are copied first, so the first call after that is not thread-safe.
  const at::Tensor& master() const;
  const float* parameters() const { return master().const_data_ptr<float>(); }
  // Lets `write` change the master copy in place, then brings what is made of it up to date: the
  // parameters on the device and the products' own copies.
  void UpdateParameters(const std::function<void(float*)>& write);
  // The same for those on the device, the flat tensor of all; the master copy follows when it is
  // asked for.
  void UpdateOnDevice(const std::function<void(const at::Tensor&)>& write);
  // The dtype of the operands of products, kFloat (as at first) or kBFloat16; sums, and all that is
  // no product, stay as they are. On the CPU the results of bf16 products are rounded too, and the
  // output embedding's are made in fp32.
  void MultiplyIn(c10::ScalarType dtype);
  c10::ScalarType products() const { return products_; }

  // Makes the parameters differentiable, with gradients accumulated into one flat tensor in the
  // same order. Once.
  void EnableGradients();
  const at::Tensor& flat_gradients() const { return flat_grad_; }
  // fp32 on the CPU: the gradients themselves, or a copy that the next call overwrites.
  const at::Tensor& HostGradients();
  void ZeroGradients();

  // Called in the backward passes of forward passes that begin while it is set (empty: no more), as
  // soon as the gradients [begin, end) of a layer are complete: from the last layer to the first.
  // What is no layer's (embeddings, the last norm) is complete when the backward pass returns.
  using LayerGradients = std::function<void(int64_t begin, int64_t end)>;
  void OnLayerGradients(LayerGradients f) { on_layer_gradients_ = std::move(f); }
  // The range of a layer in the flat buffers.
  std::pair<int64_t, int64_t> LayerRange(int64_t index) const;

 private:
  struct Layer {
    at::Tensor input_norm, q_norm, k_norm, post_norm;
    Projection qkv, o, gate_up, down;
  };

  at::Tensor LayerOutput(int64_t index, const at::Tensor& x, const at::Tensor& positions,
                         Attention& attention) const;
  // View of the slots from `first` on as one tensor of `shape`.
  at::Tensor View(const at::Tensor& flat, const std::string& first,
                  std::vector<int64_t> shape) const;
  // Runs `f` on every parameter tensor with the name of its first slot and its shape.
  template <typename F>
  void ForEachParameter(F f);
  // The backward pass reaches `x`, the input of a layer, when the layer's gradients are complete.
  void WatchGradients(int64_t layer, const at::Tensor& x) const;

  // Runs `f` on every product's weights.
  template <typename F>
  void ForEachProjection(F f);

  ModelConfig config_;
  ParameterLayout layout_;
  at::Tensor flat_, flat_grad_;
  // fp32 on the host, in memory that a GPU can reach; on the CPU in fp32 the flat ones themselves.
  at::Tensor master_, host_grad_;
  mutable bool master_stale_ = false;
  c10::ScalarType products_ = c10::kFloat;
  at::Tensor embedding_, norm_;
  Projection lm_head_;
  std::vector<Layer> layers_;
  Rotary rotary_;
  LayerGradients on_layer_gradients_;
};

}  // namespace e3

#endif  // E3_MODEL_TRANSFORMER_H_
