// Supervised fine-tuning: maximise the likelihood of responses.
#ifndef E3_LEARNER_SFT_H_
#define E3_LEARNER_SFT_H_

#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "e3/v1/sft_spec.pb.h"
#include "learner/packing.h"
#include "model/transformer.h"

namespace e3 {

struct SftProgress {
  int64_t step;  // from 1
  int64_t steps;
  double loss;  // nats a response token
  double learning_rate;
  double tokens_per_second;
};

// `next_batch(step)` gives the sequences of a step. `model` is trained in place. ResourceExhausted
// when gradients stop being finite.
absl::Status RunSft(
    const v1::SftTraining& training,
    const std::function<absl::StatusOr<std::vector<TrainingSequence>>(int64_t step)>& next_batch,
    const std::function<void(const SftProgress&)>& report, Transformer* model);

// Draws every parameter: embeddings N(0, 0.02²), matrices N(0, 0.49 / fan-in), norms 1, biases 0.
void InitializeParameters(uint64_t seed, const ParameterLayout& layout, float* parameters);

}  // namespace e3

#endif  // E3_LEARNER_SFT_H_
