// The optimizer of a model, where its parameters are.
#ifndef E3_LEARNER_OPTIMIZER_H_
#define E3_LEARNER_OPTIMIZER_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>

#include "learner/adamw.h"
#include "model/transformer.h"

namespace e3 {

// AdamW over a whole model or a part of it. Of a model on the CPU it is adamw.h's; of one on
// another device its moments are there too and LibTorch's fused kernel steps, or, with `offload`,
// both are on the host and gradients and parameters travel (Ren et al. 2021, ZeRO-Offload): 8 bytes
// a parameter less of the device's memory, and slower. Not thread-safe.
class Optimizer {
 public:
  // Of the parameters [begin, end) of `model`, which outlives it.
  Optimizer(Transformer* model, bool offload, int64_t begin, int64_t end);

  // One step on the gradients that the model has accumulated, clipped to `max_grad_norm` (0: not).
  // `exchange`, when given, then fills in what other optimizers have updated, in the flat tensor of
  // all parameters. Returns the norm before clipping; gradients that are not finite change nothing.
  double Step(const AdamWOptions& options, double max_grad_norm,
              const std::function<void(const at::Tensor& parameters)>& exchange = nullptr);

  bool whole() const { return end_ - begin_ == model_->layout().size(); }
  int64_t begin() const { return begin_; }
  int64_t end() const { return end_; }
  int64_t updates() const;
  // end() - begin() floats each, on the host: a copy, or a view where they are there and `copy` is
  // false.
  struct Moments {
    std::shared_ptr<const float> first, second;
  };
  Moments GetMoments(bool copy) const;
  // The moments of [begin, end); zeros where updates is 0.
  void Restore(int64_t updates, const float* first_moment, const float* second_moment);
  void Reset();

 private:
  // The moments of a model on a device; undefined while they are zeros.
  struct OnDevice {
    at::Tensor first, second;
    int64_t updates = 0;
  };
  void StepOnDevice(const AdamWOptions& options, double scale, const at::Tensor& parameters);

  Transformer* model_;
  int64_t begin_, end_;
  std::unique_ptr<AdamW> host_;  // or else
  std::unique_ptr<OnDevice> device_;
};

// A copy that nobody writes; and what only looks at values that live elsewhere.
std::shared_ptr<const float> CopyFloats(const float* values, int64_t n);
std::shared_ptr<const float> ViewFloats(const float* values);

}  // namespace e3

#endif  // E3_LEARNER_OPTIMIZER_H_
