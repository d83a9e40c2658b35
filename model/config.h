// The shape of a model, from a Hugging Face config.json.
#ifndef E3_MODEL_CONFIG_H_
#define E3_MODEL_CONFIG_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace e3 {

// Llama 3's rope scaling: long wavelengths are slowed by `factor`, short ones kept, with a smooth
// step in between.
struct Llama3RopeScaling {
  double factor;
  double low_freq_factor;
  double high_freq_factor;
  double original_max_position;
};

struct ModelConfig {
  std::string model_type;  // "qwen3", "qwen2" or "llama"
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t vocab_size = 0;
  int64_t context_length = 0;  // max_position_embeddings
  double rms_norm_eps = 1e-6;
  double rope_theta = 10000;
  std::optional<Llama3RopeScaling> rope_scaling;
  bool tie_word_embeddings = false;
  bool attention_bias = false;  // biases of q, k and v (Qwen2.5)
  bool qk_norm = false;         // RMS norm of each query and key head (Qwen3)
  // Tokens that end a response: generation_config.json's eos_token_id, else config.json's.
  std::vector<uint32_t> eos_token_ids;

  // Inverse frequencies of the rotary embedding: head_dim / 2 values.
  std::vector<float> RopeInverseFrequencies() const;

  // Reads `folder`/config.json and generation_config.json. InvalidArgument names the file, and the
  // feature that this transformer does not have (sliding windows, other rope types, …): a model is
  // never run as something that it is not.
  static absl::StatusOr<ModelConfig> Load(const std::string& folder);
};

}  // namespace e3

#endif  // E3_MODEL_CONFIG_H_
