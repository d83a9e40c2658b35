#include "learner/prompting.h"

#include "nlohmann/json.hpp"

namespace e3 {

absl::StatusOr<std::vector<uint32_t>> EncodePrompt(const PromptEncoder& encoder,
                                                   const v1::Prompting& prompting,
                                                   const Problem& problem) {
  using Json = nlohmann::ordered_json;
  const std::vector<ChatMessage> user = {{"user", problem.prompt}};
  const std::vector<ChatMessage>& given = problem.messages.empty() ? user : problem.messages;
  const bool chat =
      prompting.has_chat_template() ? prompting.chat_template() : encoder.has_chat_template();
  if (!chat) {
    if (given.size() > 1 || given[0].role != "user") {
      return absl::FailedPreconditionError(
          "a prompt of several chat messages needs a chat template: use a model that has one, and "
          "leave out prompting.chat_template");
    }
    return encoder.EncodeText(given[0].content);
  }
  Json messages = Json::array();
  if (!prompting.system().empty() && given[0].role != "system")
    messages.push_back({{"role", "system"}, {"content", prompting.system()}});
  for (const ChatMessage& message : given)
    messages.push_back({{"role", message.role}, {"content", message.content}});
  return encoder.EncodeMessages(messages, prompting.template_arguments().empty()
                                              ? Json::object()
                                              : Json::parse(prompting.template_arguments()));
}

}  // namespace e3
