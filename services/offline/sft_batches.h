// The sequences that a supervised fine-tuning learns from, step by step.
#ifndef E3_SERVICES_OFFLINE_SFT_BATCHES_H_
#define E3_SERVICES_OFFLINE_SFT_BATCHES_H_

#include "absl/status/statusor.h"
#include "e3/v1/sft_spec.pb.h"
#include "learner/sft.h"
#include "model/prompt_encoder.h"

namespace e3 {

// From the file or the generator that the data names. The sequences of a step depend on nothing but
// the spec and the step; `encoder` outlives them. `eos` ends every response.
absl::StatusOr<SftBatches> MakeSftBatches(const v1::SftSpec& spec, const PromptEncoder* encoder,
                                          uint32_t eos);

}  // namespace e3

#endif  // E3_SERVICES_OFFLINE_SFT_BATCHES_H_
