#include "services/offline/prompt_line.h"

namespace e3 {

absl::StatusOr<std::vector<uint32_t>> TokenIds(const Json& line) {
  std::vector<uint32_t> ids;
  if (!line.contains("token_ids") || !line["token_ids"].is_array())
    return absl::InvalidArgumentError("\"token_ids\" must be a list");
  for (const Json& id : line["token_ids"]) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > UINT32_MAX) {
      return absl::InvalidArgumentError(
          "\"token_ids\" must be whole numbers that are not negative");
    }
    ids.push_back(id.get<uint32_t>());
  }
  return ids;
}

absl::StatusOr<std::vector<uint32_t>> PromptIds(const Json& line, const PromptEncoder& encoder) {
  const int given = static_cast<int>(line.contains("prompt")) +
                    static_cast<int>(line.contains("messages")) +
                    static_cast<int>(line.contains("token_ids"));
  if (given != 1)
    return absl::InvalidArgumentError(
        "expected exactly one of \"prompt\", \"messages\" and \"token_ids\"");
  if (line.contains("prompt")) {
    if (!line["prompt"].is_string()) return absl::InvalidArgumentError("\"prompt\" must be text");
    return encoder.EncodeText(line["prompt"].get<std::string>());
  }
  if (line.contains("messages")) {
    if (!line["messages"].is_array())
      return absl::InvalidArgumentError("\"messages\" must be a list");
    return encoder.EncodeMessages(line["messages"],
                                  line.value("chat_template_arguments", Json::object()));
  }
  return TokenIds(line);
}

}  // namespace e3
