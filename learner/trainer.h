// One GRPO update after another on a policy.
#ifndef E3_LEARNER_TRAINER_H_
#define E3_LEARNER_TRAINER_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "e3/v1/job_spec.pb.h"
#include "learner/adamw.h"
#include "learner/packing.h"
#include "model/transformer.h"

namespace e3 {

// A rollout as the objective sees it.
struct TrainingRollout {
  TrainingSequence sequence;
  std::vector<float> old_logprobs;  // of the response, as sampled
  double advantage = 0;
};

struct UpdateStatistics {
  double loss = 0;
  double kl = 0;       // mean over trained tokens; 0 without a reference
  double entropy = 0;  // likewise
  double ratio = 0;
  double clip_low_share = 0, clip_high_share = 0, clip_dual_share = 0;
  double gradient_norm = 0;
  double learning_rate = 0;
  bool skipped = false;  // nothing had a gradient, or it was not finite
  bool finite = true;
  int64_t tokens = 0;  // response tokens that were computed
  // |policy's log-probability - sampled one| before the update.
  double mismatch_max = 0, mismatch_mean = 0;
};

// Divides by nothing: one clipped AdamW step on the accumulated gradients. Returns the norm before
// clipping; gradients that are not finite change nothing.
double OptimizerStep(Transformer& model, AdamW& optimizer, const AdamWOptions& options,
                     double max_grad_norm);

// Not thread-safe.
class Trainer {
 public:
  explicit Trainer(std::unique_ptr<Transformer> policy);

  // One optimizer update on a mini-batch. `rollouts` keep their order; the result is the same for
  // every micro_batch_tokens up to rounding. `training` has all fields set.
  UpdateStatistics Update(const std::vector<const TrainingRollout*>& rollouts,
                          const v1::Training& training, double temperature);

  Transformer& policy() { return *policy_; }
  AdamW& optimizer() { return optimizer_; }
  // The frozen reference of the KL penalty.
  std::vector<float>& reference_parameters();
  void ResetReference();

 private:
  std::unique_ptr<Transformer> policy_;
  AdamW optimizer_;
  std::unique_ptr<Transformer> reference_;  // made on first use
  std::vector<float> reference_parameters_;
};

}  // namespace e3

#endif  // E3_LEARNER_TRAINER_H_
