#include "model/config.h"

#include <cmath>
#include <numbers>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "services/runtime/files.h"
#include "services/runtime/status_macros.h"

namespace e3 {
namespace {

using Json = nlohmann::json;

absl::StatusOr<Json> ReadJson(const std::string& path) {
  E3_ASSIGN_OR_RETURN(std::string text, ReadFile(path));
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object())
    return absl::InvalidArgumentError(absl::StrCat(path, " is not a JSON object"));
  return json;
}

void AppendIds(const Json& json, std::vector<uint32_t>* ids) {
  auto it = json.find("eos_token_id");
  if (it == json.end() || it->is_null()) return;
  if (it->is_number_unsigned()) ids->push_back(it->get<uint32_t>());
  if (it->is_array()) {
    for (const Json& id : *it) {
      if (id.is_number_unsigned()) ids->push_back(id.get<uint32_t>());
    }
  }
}

// transformers 5 writes rope_parameters; earlier versions write rope_theta and rope_scaling.
absl::Status ReadRope(const Json& json, ModelConfig* config) {
  Json rope = json.value("rope_parameters", Json());
  if (rope.is_null()) rope = json.value("rope_scaling", Json());
  config->rope_theta = json.value("rope_theta", 10000.0);
  if (rope.is_null()) return absl::OkStatus();
  config->rope_theta = rope.value("rope_theta", config->rope_theta);
  std::string type = rope.value("rope_type", rope.value("type", "default"));
  if (type == "default") return absl::OkStatus();
  if (type != "llama3") {
    return absl::InvalidArgumentError(
        absl::StrCat("rope type '", type, "' is not supported ('default' and 'llama3' are)"));
  }
  config->rope_scaling = Llama3RopeScaling{
      .factor = rope.at("factor").get<double>(),
      .low_freq_factor = rope.at("low_freq_factor").get<double>(),
      .high_freq_factor = rope.at("high_freq_factor").get<double>(),
      .original_max_position = rope.at("original_max_position_embeddings").get<double>()};
  return absl::OkStatus();
}

absl::StatusOr<ModelConfig> Parse(const Json& json) {
  ModelConfig config;
  config.model_type = json.value("model_type", "");
  if (config.model_type != "qwen3" && config.model_type != "qwen2" &&
      config.model_type != "llama") {
    return absl::InvalidArgumentError(
        absl::StrCat("model_type '", config.model_type,
                     "' is not supported ('qwen3', 'qwen2' and 'llama' are)"));
  }
  config.hidden_size = json.at("hidden_size").get<int64_t>();
  config.intermediate_size = json.at("intermediate_size").get<int64_t>();
  config.num_layers = json.at("num_hidden_layers").get<int64_t>();
  config.num_heads = json.at("num_attention_heads").get<int64_t>();
  config.num_kv_heads = json.value("num_key_value_heads", config.num_heads);
  config.vocab_size = json.at("vocab_size").get<int64_t>();
  config.context_length = json.at("max_position_embeddings").get<int64_t>();
  config.rms_norm_eps = json.value("rms_norm_eps", 1e-6);
  config.tie_word_embeddings = json.value("tie_word_embeddings", false);
  config.attention_bias = config.model_type == "qwen2" || json.value("attention_bias", false);
  config.qk_norm = config.model_type == "qwen3";
  if (config.num_heads <= 0 || config.num_kv_heads <= 0 ||
      config.num_heads % config.num_kv_heads != 0 || config.num_heads / config.num_kv_heads > 64) {
    return absl::InvalidArgumentError(
        "num_attention_heads must be num_key_value_heads times 1 to 64");
  }
  for (auto [name, value] : {std::pair("hidden_size", config.hidden_size),
                             {"intermediate_size", config.intermediate_size},
                             {"num_hidden_layers", config.num_layers},
                             {"vocab_size", config.vocab_size},
                             {"max_position_embeddings", config.context_length}}) {
    if (value < 1 || value > (int64_t{1} << 31))
      return absl::InvalidArgumentError(absl::StrCat(name, " is ", value));
  }
  if (config.hidden_size % 8 != 0 || config.intermediate_size % 8 != 0) {
    return absl::InvalidArgumentError("hidden_size and intermediate_size must be multiples of 8");
  }
  Json head_dim = json.value("head_dim", Json());
  config.head_dim =
      head_dim.is_null() ? config.hidden_size / config.num_heads : head_dim.get<int64_t>();
  if (config.head_dim < 8 || config.head_dim % 8 != 0 || config.head_dim > 256) {
    return absl::InvalidArgumentError(
        absl::StrCat("head_dim ", config.head_dim, " is not a multiple of 8 up to 256"));
  }
  E3_RETURN_IF_ERROR(ReadRope(json, &config));

  // What would change the computation is refused by name.
  if (json.value("hidden_act", "silu") != "silu") {
    return absl::InvalidArgumentError(
        absl::StrCat("hidden_act '", json.value("hidden_act", ""), "' is not supported"));
  }
  if (json.value("use_sliding_window", false))
    return absl::InvalidArgumentError("sliding windows are not supported");
  for (const Json& layer : json.value("layer_types", Json::array())) {
    if (layer != "full_attention") {
      return absl::InvalidArgumentError(
          absl::StrCat("layer type ", layer.dump(), " is not supported"));
    }
  }
  if (json.value("mlp_bias", false)) return absl::InvalidArgumentError("mlp_bias is not supported");
  if (config.model_type != "qwen2" && config.attention_bias) {
    return absl::InvalidArgumentError(
        absl::StrCat("attention_bias is not supported for ", config.model_type));
  }
  return config;
}

}  // namespace

absl::StatusOr<ModelConfig> ModelConfig::Load(const std::string& folder) {
  std::string path = absl::StrCat(folder, "/config.json");
  E3_ASSIGN_OR_RETURN(Json json, ReadJson(path));
  absl::StatusOr<ModelConfig> config;
  try {
    config = Parse(json);
  } catch (const Json::exception& e) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", e.what()));
  }
  if (!config.ok())
    return absl::Status(config.status().code(),
                        absl::StrCat(path, ": ", config.status().message()));
  if (absl::StatusOr<Json> generation = ReadJson(absl::StrCat(folder, "/generation_config.json"));
      generation.ok()) {
    AppendIds(*generation, &config->eos_token_ids);
  }
  if (config->eos_token_ids.empty()) AppendIds(json, &config->eos_token_ids);
  return config;
}

// In fp32 as transformers computes it: at long positions the last bit of a frequency shows in the
// angles.
std::vector<float> ModelConfig::RopeInverseFrequencies() const {
  std::vector<float> frequencies(static_cast<size_t>(head_dim / 2));
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    float f = 1.0f / std::pow(static_cast<float>(rope_theta), exponent);
    if (rope_scaling) {
      const Llama3RopeScaling& s = *rope_scaling;
      const float wavelength = static_cast<float>(2 * std::numbers::pi) / f;
      const double low = s.original_max_position / s.low_freq_factor;
      const double high = s.original_max_position / s.high_freq_factor;
      if (wavelength > low) {
        f /= static_cast<float>(s.factor);
      } else if (wavelength >= high) {
        const float smooth =
            static_cast<float>((s.original_max_position / wavelength - s.low_freq_factor) /
                               (s.high_freq_factor - s.low_freq_factor));
        f = (1 - smooth) * f / static_cast<float>(s.factor) + smooth * f;
      }
    }
    frequencies[i] = f;
  }
  return frequencies;
}

}  // namespace e3
