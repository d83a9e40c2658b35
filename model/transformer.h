// The decoder-only transformer of Qwen3, Qwen2.5, Llama 3 and SmolLM2; the same code trains and
// generates.
#ifndef E3_MODEL_TRANSFORMER_H_
#define E3_MODEL_TRANSFORMER_H_

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/attention.h"
#include "model/config.h"
#include "model/operators.h"
#include "model/parameters.h"
#include "model/row_kernels.h"

namespace e3 {

// Holds the parameters as views of one flat fp32 tensor in the order of ParameterLayout. Forward
// passes are const and thread-safe as long as nobody writes the parameters.
class Transformer {
 public:
  // Parameters are not initialised.
  explicit Transformer(const ModelConfig& config, c10::Device device = c10::kCPU);
  // Configuration and parameters of a Hugging Face folder.
  static absl::StatusOr<std::unique_ptr<Transformer>> Load(const std::string& folder,
                                                           c10::Device device = c10::kCPU);

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
  // All parameters of a model on the CPU; layout().size() floats.
  const float* parameters() const { return flat_.const_data_ptr<float>(); }
  // Lets `write` change the parameters (in place, or a copy that goes to the device afterwards),
  // then packs the products' copies again.
  void UpdateParameters(const std::function<void(float*)>& write);

  // Makes the parameters differentiable, with gradients accumulated into one flat tensor in the
  // same order. Once.
  void EnableGradients();
  float* gradients() { return flat_grad_.mutable_data_ptr<float>(); }
  void ZeroGradients();

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

  ModelConfig config_;
  ParameterLayout layout_;
  at::Tensor flat_, flat_grad_;
  at::Tensor embedding_, norm_;
  Projection lm_head_;
  std::vector<Layer> layers_;
  RotaryTable rotary_;
};

}  // namespace e3

#endif  // E3_MODEL_TRANSFORMER_H_
