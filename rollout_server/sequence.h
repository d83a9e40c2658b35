// The engine's vocabulary: requests, sequences, and what a step produces.
#ifndef E3_ROLLOUT_SERVER_SEQUENCE_H_
#define E3_ROLLOUT_SERVER_SEQUENCE_H_

#include <cstdint>
#include <vector>

namespace e3 {

// Parameters of the sampled distribution; see proto/e3/v1/rollouts.proto.
struct SamplingParams {
  double temperature = 1;
  double top_p = 1;   // 1: off
  double min_p = 0;   // 0: off
  int64_t top_k = 0;  // 0: off
};

// n samples of one prompt.
struct RolloutRequest {
  uint64_t id = 0;  // chosen by the caller; unique among live requests
  std::vector<uint32_t> prompt;
  int64_t n = 1;
  int64_t budget = 0;  // response tokens at most
  SamplingParams sampling;
  uint64_t seed = 0;
  uint32_t first_sample = 0;
  std::vector<uint32_t> response_prefix;  // already generated; n must be 1
  std::vector<uint32_t> stop_token_ids;   // besides the model's own
};

enum class Finish { kNone, kStop, kLength, kCancelled };

// One sample on its way through the engine.
struct Sequence {
  uint64_t request_id = 0;
  uint32_t sample = 0;  // index within the request
  uint64_t seed = 0;
  uint32_t draw = 0;  // first_sample + sample: the key of its random numbers
  SamplingParams sampling;
  std::vector<uint32_t> stop_token_ids;
  int64_t budget = 0;

  std::vector<uint32_t> tokens;  // prompt, then response
  int64_t prompt_length = 0;
  // Tokens whose keys and values are in the cache; the block table covers at least these.
  int64_t computed = 0;
  std::vector<int32_t> block_table;
  // Samples that start from this one's prompt blocks once it is computed (only before the fork).
  std::vector<uint32_t> siblings;

  int64_t length() const { return static_cast<int64_t>(tokens.size()); }
  int64_t response_length() const { return length() - prompt_length; }
};

// A token that a step produced.
struct TokenOutput {
  uint64_t request_id;
  uint32_t sample;
  uint32_t token;
  float logprob;  // ln softmax(logits / T)[token], before truncation
  float entropy;  // nats, of softmax(logits / T)
  Finish finish;  // kNone while the sample goes on
};

}  // namespace e3

#endif  // E3_ROLLOUT_SERVER_SEQUENCE_H_
