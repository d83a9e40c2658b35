#include "model/chat_template.h"

#include "absl/strings/str_cat.h"
#include "model/text.h"
#include "nlohmann/json.hpp"
#include "services/runtime/files.h"
#include "services/runtime/status_macros.h"

namespace e3 {
namespace {

using Json = nlohmann::ordered_json;

const uint8_t* Data(const std::string& text) {
  return reinterpret_cast<const uint8_t*>(text.data());
}

std::string Take(E3Bytes bytes) {
  std::string text(reinterpret_cast<const char*>(bytes.data), bytes.len);
  e3_bytes_free(bytes);
  return text;
}

// tokenizer_config.json's "chat_template" is a string, or a list of named ones of which "default"
// counts.
std::string TemplateOf(const Json& config) {
  auto it = config.find("chat_template");
  if (it == config.end()) return "";
  if (it->is_string()) return it->get<std::string>();
  if (it->is_array()) {
    for (const Json& named : *it) {
      if (named.value("name", "") == "default") return named.value("template", "");
    }
  }
  return "";
}

Json SpecialTokens(const Json& config) {
  Json tokens = Json::object();
  for (const char* name : {"bos_token", "eos_token", "unk_token", "pad_token", "sep_token",
                           "cls_token", "mask_token"}) {
    auto it = config.find(name);
    if (it == config.end()) continue;
    if (it->is_string()) tokens[name] = *it;
    if (it->is_object() && it->contains("content")) tokens[name] = (*it)["content"];
  }
  return tokens;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::Load(const std::string& folder) {
  Json config = Json::object();
  std::string config_path = absl::StrCat(folder, "/tokenizer_config.json");
  if (absl::StatusOr<std::string> text = ReadFile(config_path); text.ok()) {
    config = Json::parse(*text, nullptr, /*allow_exceptions=*/false);
    if (!config.is_object())
      return absl::InvalidArgumentError(absl::StrCat(config_path, " is not a JSON object"));
  }
  std::string path = absl::StrCat(folder, "/chat_template.jinja");
  std::string source;
  if (absl::StatusOr<std::string> text = ReadFile(path); text.ok()) {
    source = *std::move(text);
  } else {
    path = config_path;
    source = TemplateOf(config);
  }
  if (source.empty())
    return absl::NotFoundError(absl::StrCat("the model in ", folder, " has no chat template"));
  E3ChatTemplate* handle = nullptr;
  E3Bytes error;
  if (e3_chat_template_new(Data(source), source.size(), &handle, &error) != 0) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": chat template: ", Take(error)));
  }
  return std::unique_ptr<ChatTemplate>(new ChatTemplate(handle, SpecialTokens(config).dump()));
}

ChatTemplate::~ChatTemplate() { e3_chat_template_free(handle_); }

absl::StatusOr<std::string> ChatTemplate::Render(const Json& messages,
                                                 const Json& arguments) const {
  Json variables = Json::parse(special_tokens_json_);
  variables["messages"] = messages;
  variables["add_generation_prompt"] = true;
  if (!arguments.is_null()) {
    if (!arguments.is_object())
      return absl::InvalidArgumentError("chat template arguments must be a JSON object");
    variables.update(arguments);
  }
  // dump() throws on text that is not UTF-8.
  std::string json;
  try {
    json = variables.dump();
  } catch (const nlohmann::json::exception& e) {
    return absl::InvalidArgumentError(absl::StrCat("messages are not UTF-8: ", e.what()));
  }
  E3Bytes text;
  E3Bytes error;
  if (e3_chat_template_render(handle_, Data(json), json.size(), &text, &error) != 0) {
    return absl::InvalidArgumentError(absl::StrCat("chat template: ", Take(error)));
  }
  return Take(text);
}

}  // namespace e3
