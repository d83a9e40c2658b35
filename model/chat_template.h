// Chat messages to the text that a model was trained on.
#ifndef E3_MODEL_CHAT_TEMPLATE_H_
#define E3_MODEL_CHAT_TEMPLATE_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "nlohmann/json_fwd.hpp"

struct E3ChatTemplate;

namespace e3 {

// The chat template of a Hugging Face folder. Immutable and thread-safe.
class ChatTemplate {
 public:
  // From `folder`/chat_template.jinja or the "chat_template" of tokenizer_config.json. NotFound
  // when the model has none.
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> Load(const std::string& folder);
  ~ChatTemplate();
  ChatTemplate(const ChatTemplate&) = delete;
  ChatTemplate& operator=(const ChatTemplate&) = delete;

  // `messages`: a JSON array of {"role", "content", …}. `arguments`: a JSON object with further
  // variables of the template, e.g. {"enable_thinking": false} or {"tools": […]}; it may override
  // add_generation_prompt (true here). The result is tokenized without special tokens.
  // InvalidArgument with the template's own message when it refuses.
  absl::StatusOr<std::string> Render(const nlohmann::ordered_json& messages,
                                     const nlohmann::ordered_json& arguments) const;

 private:
  ChatTemplate(E3ChatTemplate* handle, std::string special_tokens_json)
      : handle_(handle), special_tokens_json_(std::move(special_tokens_json)) {}
  E3ChatTemplate* handle_;
  // {"bos_token": …, "eos_token": …, …} of tokenizer_config.json, which templates refer to.
  std::string special_tokens_json_;
};

}  // namespace e3

#endif  // E3_MODEL_CHAT_TEMPLATE_H_
