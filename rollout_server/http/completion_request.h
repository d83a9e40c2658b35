// The bodies of /v1/completions and /v1/chat/completions, as the engine takes them.
#ifndef E3_ROLLOUT_SERVER_HTTP_COMPLETION_REQUEST_H_
#define E3_ROLLOUT_SERVER_HTTP_COMPLETION_REQUEST_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/prompt_encoder.h"
#include "nlohmann/json.hpp"
#include "rollout_server/request.h"

namespace e3 {

struct CompletionRequest {
  bool chat = false;
  bool stream = false;
  bool include_usage = false;  // stream_options.include_usage
  bool echo = false;           // completions: the prompt comes back in front of the text
  bool logprobs = false;
  bool no_tokens = false;  // max_tokens 0: only the prompt is wanted
  std::string model;
  // One engine request a prompt; choices are numbered through them.
  std::vector<RolloutRequest> requests;
  std::vector<std::string> stops;  // stop strings, which the text does not show
  int64_t min_tokens = 0;
};

// Fields that these end points do not know are refused by name, as are values of the wrong type:
// InvalidArgument, beginning with the field's name. `random_seed` is used when the body has no
// seed.
absl::StatusOr<CompletionRequest> ParseCompletionRequest(const nlohmann::ordered_json& body,
                                                         bool chat, const PromptEncoder& encoder,
                                                         int64_t context_length,
                                                         uint64_t random_seed);

}  // namespace e3

#endif  // E3_ROLLOUT_SERVER_HTTP_COMPLETION_REQUEST_H_
