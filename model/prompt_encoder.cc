#include "model/prompt_encoder.h"

#include "absl/strings/str_cat.h"
#include "services/runtime/status_macros.h"

namespace e3 {

absl::StatusOr<std::unique_ptr<PromptEncoder>> PromptEncoder::Load(const std::string& folder) {
  auto encoder = std::make_unique<PromptEncoder>();
  encoder->folder_ = folder;
  E3_ASSIGN_OR_RETURN(encoder->tokenizer_, Tokenizer::Load(folder));
  absl::StatusOr<std::unique_ptr<ChatTemplate>> chat_template = ChatTemplate::Load(folder);
  if (chat_template.ok()) {
    encoder->chat_template_ = *std::move(chat_template);
  } else if (!absl::IsNotFound(chat_template.status())) {
    return chat_template.status();
  }
  return encoder;
}

absl::StatusOr<std::vector<uint32_t>> PromptEncoder::EncodeText(const std::string& text) const {
  return tokenizer_->Encode(text, /*add_special_tokens=*/true);
}

absl::StatusOr<std::vector<uint32_t>> PromptEncoder::EncodeMessages(
    const nlohmann::ordered_json& messages, const nlohmann::ordered_json& arguments) const {
  if (chat_template_ == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("the model in ", folder_, " has no chat template; use \"prompt\""));
  }
  E3_ASSIGN_OR_RETURN(std::string text, chat_template_->Render(messages, arguments));
  return tokenizer_->Encode(text, /*add_special_tokens=*/false);
}

}  // namespace e3
