#include "model/parameters.h"

#include <cstdlib>
#include <filesystem>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"
#include "services/runtime/files.h"
#include "services/runtime/status_macros.h"

namespace e3 {

ParameterLayout::ParameterLayout(const ModelConfig& c) {
  const int64_t q = c.num_heads * c.head_dim;
  const int64_t kv = c.num_kv_heads * c.head_dim;
  Add("model.embed_tokens.weight", {c.vocab_size, c.hidden_size}, true);
  for (int64_t i = 0; i < c.num_layers; ++i) {
    std::string layer = absl::StrCat("model.layers.", i, ".");
    Add(layer + "input_layernorm.weight", {c.hidden_size}, false);
    Add(layer + "self_attn.q_proj.weight", {q, c.hidden_size}, true);
    Add(layer + "self_attn.k_proj.weight", {kv, c.hidden_size}, true);
    Add(layer + "self_attn.v_proj.weight", {kv, c.hidden_size}, true);
    if (c.attention_bias) {
      Add(layer + "self_attn.q_proj.bias", {q}, false);
      Add(layer + "self_attn.k_proj.bias", {kv}, false);
      Add(layer + "self_attn.v_proj.bias", {kv}, false);
    }
    if (c.qk_norm) {
      Add(layer + "self_attn.q_norm.weight", {c.head_dim}, false);
      Add(layer + "self_attn.k_norm.weight", {c.head_dim}, false);
    }
    Add(layer + "self_attn.o_proj.weight", {c.hidden_size, q}, true);
    Add(layer + "post_attention_layernorm.weight", {c.hidden_size}, false);
    Add(layer + "mlp.gate_proj.weight", {c.intermediate_size, c.hidden_size}, true);
    Add(layer + "mlp.up_proj.weight", {c.intermediate_size, c.hidden_size}, true);
    Add(layer + "mlp.down_proj.weight", {c.hidden_size, c.intermediate_size}, true);
  }
  Add("model.norm.weight", {c.hidden_size}, false);
  if (!c.tie_word_embeddings) Add("lm_head.weight", {c.vocab_size, c.hidden_size}, true);
}

void ParameterLayout::Add(std::string name, std::vector<int64_t> shape, bool decay) {
  int64_t size = 1;
  for (int64_t d : shape) size *= d;
  by_name_[name] = slots_.size();
  slots_.push_back({std::move(name), std::move(shape), size_, size, decay});
  size_ += size;
}

const ParameterSlot& ParameterLayout::slot(const std::string& name) const {
  auto it = by_name_.find(name);
  if (it == by_name_.end()) {
    std::cerr << "no parameter " << name << "\n";
    abort();
  }
  return slots_[it->second];
}

absl::Status LoadParameters(const std::string& folder, const ModelConfig& config,
                            const ParameterLayout& layout, float* out) {
  E3_ASSIGN_OR_RETURN(std::unique_ptr<SafetensorsReader> reader,
                      SafetensorsReader::OpenFolder(folder));
  for (const ParameterSlot& slot : layout.slots()) {
    std::string name = slot.name;
    // Some folders with untied embeddings in name only leave lm_head out.
    if (name == "lm_head.weight" && !reader->Contains(name)) {
      return absl::InvalidArgumentError(absl::StrCat(
          folder, " has no lm_head.weight, but its config.json does not tie the word embeddings"));
    }
    E3_ASSIGN_OR_RETURN(TensorView view, reader->Get(name));
    if (view.shape != slot.shape) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tensor ", name, " in ", folder, " has shape [", absl::StrJoin(view.shape, ", "),
          "], but config.json asks for [", absl::StrJoin(slot.shape, ", "), "]"));
    }
    E3_RETURN_IF_ERROR(CopyAsFloat(view, out + slot.offset));
  }
  (void)config;
  return absl::OkStatus();
}

absl::Status SaveModel(const std::string& folder, const std::string& source_folder,
                       const ParameterLayout& layout, const float* parameters, Dtype dtype) {
  namespace fs = std::filesystem;
  // Everything that describes the model and its text goes along; weights, their index and our own
  // state do not.
  for (const char* name :
       {"generation_config.json", "tokenizer.json", "tokenizer_config.json",
        "special_tokens_map.json", "vocab.json", "merges.txt", "added_tokens.json",
        "chat_template.jinja", "tokenizer.model", "README.md", "LICENSE"}) {
    std::error_code error;
    fs::path source = fs::path(source_folder) / name;
    if (!fs::exists(source, error)) continue;
    fs::copy_file(source, fs::path(folder) / name, fs::copy_options::overwrite_existing, error);
    if (error)
      return FromErrno(error.value(),
                       absl::StrCat("cannot copy ", source.string(), ": ", error.message()));
  }
  E3_ASSIGN_OR_RETURN(std::string text, ReadFile(absl::StrCat(source_folder, "/config.json")));
  auto config = nlohmann::ordered_json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!config.is_object())
    return absl::InvalidArgumentError(absl::StrCat(source_folder, "/config.json is not an object"));
  const char* dtype_name = dtype == Dtype::kBFloat16 ? "bfloat16" : "float32";
  if (config.contains("dtype")) config["dtype"] = dtype_name;
  if (config.contains("torch_dtype") || !config.contains("dtype"))
    config["torch_dtype"] = dtype_name;
  E3_RETURN_IF_ERROR(WriteFileDurably(absl::StrCat(folder, "/config.json"), config.dump(2) + "\n"));

  std::vector<TensorToWrite> tensors;
  for (const ParameterSlot& slot : layout.slots()) {
    tensors.push_back({slot.name, slot.shape, dtype, parameters + slot.offset});
  }
  return WriteSafetensors(absl::StrCat(folder, "/model.safetensors"), tensors, {{"format", "pt"}});
}

}  // namespace e3
