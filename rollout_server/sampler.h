// Draws the next token from a row of logits.
#ifndef E3_ROLLOUT_SERVER_SAMPLER_H_
#define E3_ROLLOUT_SERVER_SAMPLER_H_

#include <cstdint>
#include <vector>

#include "rollout_server/sequence.h"

namespace e3 {

// What a draw is keyed by, and the row it is made from.
struct DrawRequest {
  const float* logits;  // [vocab_size]
  const SamplingParams* sampling;
  uint64_t seed;
  uint32_t sample;
  uint64_t position;  // index of the token in the response
  // Prompt and response so far, for the repetition penalty.
  const std::vector<uint32_t>* tokens = nullptr;
  // Tokens that may not be drawn (min_tokens), in two lists; null: none.
  const std::vector<uint32_t>* forbidden[2] = {nullptr, nullptr};
};

// One draw a row, in parallel. The token is a pure function of its DrawRequest: inverse-CDF
// sampling in vocabulary order with a Philox number keyed by (seed, sample, position). Temperature
// 0: the first of the most likely tokens. Where logits are not finite the log-probabilities are not
// either, and the token means nothing.
std::vector<OutputToken> SampleTokens(const std::vector<DrawRequest>& requests, int64_t vocab_size);

// The same numbers for tokens that are given, without a draw: tokens[i] after row i of `logits`. In
// parallel.
std::vector<OutputToken> ScoreTokens(const float* logits, int64_t vocab_size,
                                     const SamplingParams& sampling,
                                     const std::vector<uint32_t>& tokens);

}  // namespace e3

#endif  // E3_ROLLOUT_SERVER_SAMPLER_H_
