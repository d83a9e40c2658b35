// Checkpoints: a Hugging Face folder with the trainer's state beside the model.
//
//   step-000020/  config.json, model.safetensors, tokenizer.json, …   opens with transformers
//                 trainer.safetensors                                 AdamW's moments, the
//                 reference model trainer.json                                        job, step,
//                 updates, checksums of the files above
#ifndef E3_LEARNER_CHECKPOINT_H_
#define E3_LEARNER_CHECKPOINT_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "learner/trainer.h"

namespace e3 {

// Writes `folder` whole or not at all. `source_model` lends its configuration and tokenizer.
absl::Status SaveCheckpoint(const std::string& folder, const std::string& job_id, uint64_t step,
                            const std::string& source_model, Trainer& trainer);

// Restores the trainer. DataLoss for a folder that is torn, corrupt or of another model,
// FailedPrecondition for one of another job; the trainer is unchanged then. Returns the step.
absl::StatusOr<uint64_t> LoadCheckpoint(const std::string& folder, const std::string& job_id,
                                        Trainer& trainer);

// Folders "step-…" under `parent`, newest first.
std::vector<std::string> ListCheckpoints(const std::string& parent);
std::string CheckpointFolder(const std::string& parent, uint64_t step);
// The step in such a folder's name.
uint64_t CheckpointStep(const std::string& folder);
// Removes all but the newest `keep`.
void PruneCheckpoints(const std::string& parent, int64_t keep);

}  // namespace e3

#endif  // E3_LEARNER_CHECKPOINT_H_
