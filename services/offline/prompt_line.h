// A prompt as a JSON line gives it.
#ifndef E3_SERVICES_OFFLINE_PROMPT_LINE_H_
#define E3_SERVICES_OFFLINE_PROMPT_LINE_H_

#include <vector>

#include "absl/status/statusor.h"
#include "model/prompt_encoder.h"
#include "services/offline/jsonl.h"

namespace e3 {

// Token ids of a line with exactly one of "prompt" (text, encoded with the tokenizer's special
// tokens), "messages" (a chat, with optional "chat_template_arguments") and "token_ids".
// InvalidArgument says what was expected.
absl::StatusOr<std::vector<uint32_t>> PromptIds(const Json& line, const PromptEncoder& encoder);

// The list of token ids in field "token_ids".
absl::StatusOr<std::vector<uint32_t>> TokenIds(const Json& line);

}  // namespace e3

#endif  // E3_SERVICES_OFFLINE_PROMPT_LINE_H_
