// Prompts as token ids: plain text, or messages through the model's chat template.
#ifndef E3_MODEL_PROMPT_ENCODER_H_
#define E3_MODEL_PROMPT_ENCODER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/chat_template.h"
#include "model/tokenizer.h"
#include "nlohmann/json.hpp"

namespace e3 {

// Thread-safe.
class PromptEncoder {
 public:
  // A folder without a chat template is fine until messages are asked for.
  static absl::StatusOr<std::unique_ptr<PromptEncoder>> Load(const std::string& folder);

  // With the tokenizer's special tokens.
  absl::StatusOr<std::vector<uint32_t>> EncodeText(const std::string& text) const;
  // Rendered by the template, without further special tokens. FailedPrecondition when the model has
  // no template.
  absl::StatusOr<std::vector<uint32_t>> EncodeMessages(
      const nlohmann::ordered_json& messages, const nlohmann::ordered_json& arguments) const;

  const Tokenizer& tokenizer() const { return *tokenizer_; }
  bool has_chat_template() const { return chat_template_ != nullptr; }
  const ChatTemplate& chat_template() const { return *chat_template_; }

 private:
  std::string folder_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<ChatTemplate> chat_template_;
};

}  // namespace e3

#endif  // E3_MODEL_PROMPT_ENCODER_H_
