// What training on sequences costs, in floating-point operations.
#ifndef E3_LEARNER_FLOPS_H_
#define E3_LEARNER_FLOPS_H_

#include <cstdint>

#include "model/config.h"

namespace e3 {

// Weights of the products of one layer: what a token is multiplied with there.
int64_t LayerProductWeights(const ModelConfig& model);

// Forward and backward pass over a sequence of `length` tokens, each once: 6 a weight of a product
// and token, and attention over the keys before. What is computed again (activation checkpointing,
// logits) does not count, as is usual for model FLOPs utilisation (Chowdhery et al. 2022, PaLM,
// App. B). `head_tokens`: tokens that logits are computed for.
double TrainingFlops(const ModelConfig& model, int64_t length, int64_t head_tokens);

}  // namespace e3

#endif  // E3_LEARNER_FLOPS_H_
