// A prompt as a job or a fine-tuning wants it: as plain text, or as one user message of a chat.
#ifndef E3_LEARNER_PROMPTING_H_
#define E3_LEARNER_PROMPTING_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "e3/v1/job_spec.pb.h"
#include "model/prompt_encoder.h"
#include "tasks/problem.h"

namespace e3 {

// Token ids of a problem: its messages, or its text as one user message, in front of them the
// system message of `prompting` unless they begin with one. Without a chat template only a text can
// be encoded, or messages that are a single one of the user. `prompting.template_arguments`, when
// not empty, is a JSON object (checked with the file that it stands in). FailedPrecondition for a
// chat with a model that has no template.
absl::StatusOr<std::vector<uint32_t>> EncodePrompt(const PromptEncoder& encoder,
                                                   const v1::Prompting& prompting,
                                                   const Problem& problem);

}  // namespace e3

#endif  // E3_LEARNER_PROMPTING_H_
