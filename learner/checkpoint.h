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
                            const std::string& source_model, const ParameterLayout& layout,
                            const TrainerState& state);

struct Checkpoint {
  uint64_t step = 0;
  TrainerState state;
};

// DataLoss for a folder that is torn, corrupt or of another model than `config` and `layout`,
// FailedPrecondition for one of another job.
absl::StatusOr<Checkpoint> LoadCheckpoint(const std::string& folder, const std::string& job_id,
                                          const ModelConfig& config, const ParameterLayout& layout);

// Folders "step-…" under `parent`, newest first.
std::vector<std::string> ListCheckpoints(const std::string& parent);
std::string CheckpointFolder(const std::string& parent, uint64_t step);
// The step in such a folder's name.
uint64_t CheckpointStep(const std::string& folder);
// Of the checkpoints up to step `written`, which is whole, removes all but the newest `keep` and
// the one of step `best` (where there is one); what stands beyond it is not this run's. Returns the
// oldest of the newest ones, which a run may have to go on from.
std::string PruneCheckpoints(const std::string& parent, uint64_t written, int64_t keep,
                             uint64_t best);

}  // namespace e3

#endif  // E3_LEARNER_CHECKPOINT_H_
