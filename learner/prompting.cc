#include "learner/prompting.h"

#include "nlohmann/json.hpp"

namespace e3 {

absl::StatusOr<std::vector<uint32_t>> EncodePrompt(const PromptEncoder& encoder,
                                                   const v1::Prompting& prompting,
                                                   const std::string& prompt) {
  using Json = nlohmann::ordered_json;
  const bool chat =
      prompting.has_chat_template() ? prompting.chat_template() : encoder.has_chat_template();
  if (!chat) return encoder.EncodeText(prompt);
  Json messages = Json::array();
  if (!prompting.system().empty())
    messages.push_back({{"role", "system"}, {"content", prompting.system()}});
  messages.push_back({{"role", "user"}, {"content", prompt}});
  return encoder.EncodeMessages(messages, prompting.template_arguments().empty()
                                              ? Json::object()
                                              : Json::parse(prompting.template_arguments()));
}

}  // namespace e3
