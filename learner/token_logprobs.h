// Log-probabilities and entropies of tokens, without ever holding tokens × vocabulary.
#ifndef E3_LEARNER_TOKEN_LOGPROBS_H_
#define E3_LEARNER_TOKEN_LOGPROBS_H_

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>

#include "learner/packing.h"
#include "model/transformer.h"

namespace e3 {

struct TokenLogprobs {
  at::Tensor logprobs;   // [T] ln softmax(logits / temperature)[target]
  at::Tensor entropies;  // [T] nats, of softmax(logits / temperature)
};

// hidden [T, d], lm_head [V, d], targets int64 [T]. Differentiable in hidden and lm_head's weight:
// the logits are computed in chunks, and again in the backward pass. On the CPU in fp32 the same
// bits as the sampler's for the same hidden states.
TokenLogprobs ComputeTokenLogprobs(const at::Tensor& hidden, const Projection& lm_head,
                                   const at::Tensor& targets, double temperature);

// The model's log-probabilities of every response token of a packed batch, in its order.
// `recompute`: the backward pass computes the layers again (Transformer::RecomputedHidden).
TokenLogprobs ForwardLogprobs(const Transformer& model, const PackedBatch& batch,
                              double temperature, bool recompute = false);

}  // namespace e3

#endif  // E3_LEARNER_TOKEN_LOGPROBS_H_
