// Sums gradients over ranks in buckets while the backward pass still runs (Li et al. 2020, "PyTorch
// Distributed: Experiences on Accelerating Data Parallel Training").
#ifndef E3_LEARNER_RANKS_GRADIENT_REDUCER_H_
#define E3_LEARNER_RANKS_GRADIENT_REDUCER_H_

#include <cstdint>

#include "learner/ranks/collectives.h"
#include "model/transformer.h"

namespace e3 {

// For one mini-batch. A bucket is begun when the layers in it are complete; buckets have the same
// bounds and order on every rank, also on one that had nothing to compute.
class GradientReducer {
 public:
  static constexpr int64_t kBucketElements = int64_t{1} << 20;

  // Both outlive it. `collectives` may be null: then nothing happens.
  GradientReducer(Transformer* model, Collectives* collectives);
  ~GradientReducer();

  // The next forward pass is the last one that adds to the gradients: its backward pass reduces.
  void WatchLastBackward();
  // Reduces what is left, and waits for all.
  absl::Status Finish();

 private:
  void LayerComplete(int64_t begin, int64_t end);
  void Reduce(int64_t begin, int64_t end);

  Transformer* model_;
  Collectives* collectives_;
  int64_t layers_left_;
  int64_t bucket_begin_, bucket_end_;  // complete and not begun
};

}  // namespace e3

#endif  // E3_LEARNER_RANKS_GRADIENT_REDUCER_H_
