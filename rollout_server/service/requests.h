// Requests as clients spell them, as the engine takes them.
#ifndef E3_ROLLOUT_SERVER_SERVICE_REQUESTS_H_
#define E3_ROLLOUT_SERVER_SERVICE_REQUESTS_H_

#include <vector>

#include "absl/status/statusor.h"
#include "e3/v1/rollouts.pb.h"
#include "model/prompt_encoder.h"
#include "rollout_server/request.h"

namespace e3 {

// `encoder` may be null: then what needs a tokenizer is refused. InvalidArgument says what is
// wrong.
absl::StatusOr<RolloutRequest> ToRequest(const v1::GenerateRequest::Start& start,
                                         const PromptEncoder* encoder,
                                         const std::vector<uint32_t>& eos_token_ids);

}  // namespace e3

#endif  // E3_ROLLOUT_SERVER_SERVICE_REQUESTS_H_
