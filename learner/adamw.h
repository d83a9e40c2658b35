// AdamW (Loshchilov & Hutter 2019) over flat buffers. Knows nothing of LibTorch.
#ifndef E3_LEARNER_ADAMW_H_
#define E3_LEARNER_ADAMW_H_

#include <cstdint>
#include <vector>

#include "model/parameters.h"

namespace e3 {

struct AdamWOptions {
  double learning_rate = 1e-6;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.01;  // on matrices only (ParameterSlot::decay)
};

// Not thread-safe. Parallel inside; results do not depend on the number of threads, nor on how the
// parameters are dealt out among optimizers.
class AdamW {
 public:
  // `layout` outlives the optimizer.
  explicit AdamW(const ParameterLayout* layout);
  // Of the parameters [begin, end) only (Rajbhandari et al. 2020, "ZeRO", stage 1): the moments are
  // of these, and a step updates no others.
  AdamW(const ParameterLayout* layout, int64_t begin, int64_t end);

  // One update with bias correction; gradients are multiplied by `gradient_scale` first (clipping).
  // `gradients` and `parameters` are whole buffers.
  void Step(const AdamWOptions& options, const float* gradients, double gradient_scale,
            float* parameters);

  int64_t begin() const { return begin_; }
  int64_t end() const { return end_; }
  int64_t updates() const { return updates_; }
  // end() - begin() values each.
  std::vector<float>& first_moment() { return first_moment_; }
  std::vector<float>& second_moment() { return second_moment_; }
  void Restore(int64_t updates) { updates_ = updates; }
  void Reset();

 private:
  const ParameterLayout* layout_;
  int64_t begin_, end_;
  std::vector<float> first_moment_, second_moment_;
  int64_t updates_ = 0;
};

// The Euclidean norm of all gradients, in double, in a fixed order of summation.
double GlobalNorm(const float* gradients, int64_t n);

}  // namespace e3

#endif  // E3_LEARNER_ADAMW_H_
