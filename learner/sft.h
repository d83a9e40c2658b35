// Supervised fine-tuning: maximise the likelihood of responses.
#ifndef E3_LEARNER_SFT_H_
#define E3_LEARNER_SFT_H_

#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "e3/v1/sft_spec.pb.h"
#include "learner/packing.h"
#include "learner/trainer.h"
#include "model/transformer.h"

namespace e3 {

struct SftProgress {
  int64_t step;  // from 1
  int64_t steps;
  double loss;  // nats a response token
  double learning_rate;
  double tokens_per_second;
};

// The sequences of a step; steps come in order, from the first that is to be done.
using SftBatches = std::function<absl::StatusOr<std::vector<TrainingSequence>>(int64_t step)>;
// The state after a step: a view, while its step is told of.
using SftState = std::function<TrainerState()>;
// Told of a step that was done. An error ends the training.
using SftStepDone = std::function<absl::Status(const SftProgress&, const SftState&)>;

// Trains `model` in place, from step start.updates + 1 on: what a run that was interrupted there
// would have done. Every response token of a step weighs the same, whatever micro_batch_tokens.
// OutOfRange when a gradient is not finite.
absl::Status RunSft(const v1::SftTraining& training, TrainerState start, const SftBatches& batches,
                    const SftStepDone& done, Transformer* model);

// Draws every parameter: embeddings N(0, 0.02²), matrices N(0, 0.49 / fan-in), norms 1, biases 0.
void InitializeParameters(uint64_t seed, const ParameterLayout& layout, float* parameters);

}  // namespace e3

#endif  // E3_LEARNER_SFT_H_
