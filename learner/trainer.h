// One GRPO update after another on a policy, alone or as one of several ranks.
#ifndef E3_LEARNER_TRAINER_H_
#define E3_LEARNER_TRAINER_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "e3/v1/job_spec.pb.h"
#include "learner/device_memory.h"
#include "learner/optimizer.h"
#include "learner/packing.h"
#include "learner/policy_loss.h"
#include "learner/ranks/collectives.h"
#include "learner/update_statistics.h"
#include "model/transformer.h"

namespace e3 {

// A rollout as the objective sees it.
struct TrainingRollout {
  TrainingSequence sequence;
  std::vector<float> old_logprobs;  // of the response, as sampled
  double advantage = 0;
  bool ended = false;  // its last token is the end of the sequence, not the budget's
};

// A mini-batch, or the part of one that a rank computes: the counts are of the whole.
struct MiniBatch {
  std::vector<const TrainingRollout*> rollouts;
  MiniBatchCounts counts;
};

// The mini-batch of these rollouts: all are counted; those that carry no gradient (advantage 0, or
// masked, where neither KL nor entropy has a coefficient) are not computed.
MiniBatch MakeMiniBatch(const std::vector<const TrainingRollout*>& rollouts,
                        const v1::Training& training);

// What an update's products take their operands in.
c10::ScalarType ProductType(v1::ComputeDtype dtype);

// What a checkpoint keeps of a trainer: layout().size() floats each.
struct TrainerState {
  int64_t updates = 0;
  std::shared_ptr<const float> parameters, first_moment, second_moment, reference;
};

// That of a model which no update has been made of: it is its own reference.
TrainerState InitialState(const Transformer& policy);

// Not thread-safe.
class Trainer {
 public:
  // Alone. `offload_optimizer`: of a policy on a GPU (Optimizer).
  explicit Trainer(std::unique_ptr<Transformer> policy, bool offload_optimizer = false);
  // From now on one of several ranks, which all have the same state; once. `collectives` outlives
  // the trainer. With `shard_optimizer` each rank keeps and updates its part of the optimizer's
  // state, and the updated parameters are exchanged; the result is the same.
  void JoinRanks(Collectives* collectives, bool shard_optimizer);

  // One optimizer update. Alone, `mini_batch` is the whole; else each rank's call has its part, and
  // all ranks end with the same parameters. The result is the same for every micro_batch_tokens and
  // number of ranks, up to rounding. `training` has all fields set. Statistics are this rank's
  // sums; norm, rate and `finite` are of the whole. An error is the collectives', or what
  // LibTorch threw (Internal): the policy is of no use then.
  absl::StatusOr<UpdateStatistics> Update(const MiniBatch& mini_batch, const v1::Training& training,
                                          double temperature);
  // The first half of that: the gradients of the whole mini-batch, before clipping, in
  // policy().flat_gradients().
  absl::StatusOr<UpdateStatistics> ComputeGradients(const MiniBatch& mini_batch,
                                                    const v1::Training& training,
                                                    double temperature);

  Transformer& policy() { return *policy_; }
  Optimizer& optimizer() { return optimizer_; }
  // The state now. Without `copy` it is a view, to be used before the next update; the reference is
  // never copied, since it is replaced and not written. With a sharded optimizer every rank must
  // call it, and the moments are gathered (and copied).
  absl::StatusOr<TrainerState> State(bool copy);
  void Restore(const TrainerState& state);
  // Begins afresh what the stage says: the optimizer, the reference.
  void BeginStage(const v1::Training& training);
  // What this rank shares with others, of which `neighbours` are on its host (itself included).
  RankShares Shares(int neighbours) const;
  // Makes the policy the frozen reference of the KL penalty.
  void ResetReference();

 private:
  absl::StatusOr<UpdateStatistics> AccumulateGradients(const MiniBatch& mini_batch,
                                                       const v1::Training& training,
                                                       double temperature);
  absl::StatusOr<UpdateStatistics> Step(UpdateStatistics statistics, const v1::Training& training);

  std::unique_ptr<Transformer> policy_;
  Collectives* collectives_ = nullptr;
  bool offload_optimizer_;
  Optimizer optimizer_;
  std::unique_ptr<Transformer> reference_;  // made on first use
  std::shared_ptr<const float> reference_parameters_;
};

}  // namespace e3

#endif  // E3_LEARNER_TRAINER_H_
