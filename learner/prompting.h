// A prompt as a job or a fine-tuning wants it: as plain text, or as one user message of a chat.
#ifndef E3_LEARNER_PROMPTING_H_
#define E3_LEARNER_PROMPTING_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "e3/v1/job_spec.pb.h"
#include "model/prompt_encoder.h"

namespace e3 {

// Token ids. `prompting.template_arguments`, when not empty, is a JSON object (checked with the
// file that it stands in). FailedPrecondition for a chat with a model that has no template.
absl::StatusOr<std::vector<uint32_t>> EncodePrompt(const PromptEncoder& encoder,
                                                   const v1::Prompting& prompting,
                                                   const std::string& prompt);

}  // namespace e3

#endif  // E3_LEARNER_PROMPTING_H_
