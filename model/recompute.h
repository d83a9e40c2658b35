// Activation checkpointing: a part of the forward pass keeps only its input, and is computed again
// when the backward pass needs what lies within (Chen et al. 2016, "Training deep nets with
// sublinear memory cost").
#ifndef E3_MODEL_RECOMPUTE_H_
#define E3_MODEL_RECOMPUTE_H_

#include <ATen/core/Tensor.h>

#include <functional>

namespace e3 {

// f(x), differentiable in x and in the leaves that f uses. `f` is called now and again in the
// backward pass, so it must be a pure function, and own or outlive what it captures.
at::Tensor Recomputed(std::function<at::Tensor(const at::Tensor&)> f, const at::Tensor& x);

}  // namespace e3

#endif  // E3_MODEL_RECOMPUTE_H_
