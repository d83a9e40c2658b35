// What a client asks of the engine; see proto/e3/v1/rollouts.proto for the meaning of each field.
#ifndef E3_ROLLOUT_SERVER_REQUEST_H_
#define E3_ROLLOUT_SERVER_REQUEST_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace e3 {

// The distribution that is sampled: logits are penalised, biased and forbidden (in this order),
// then softmax(logits / temperature) is cut by top-k, top-p and min-p (in this order).
struct SamplingParams {
  double temperature = 1;         // 0: greedy
  double top_p = 1;               // 1: off
  double min_p = 0;               // 0: off
  int64_t top_k = 0;              // 0: off
  double repetition_penalty = 1;  // 1: off; of tokens in the prompt and the response
  std::vector<std::pair<uint32_t, float>> logit_bias;
  int64_t min_tokens = 0;     // stop tokens are forbidden before
  int64_t top_logprobs = 0;   // most likely tokens to report besides the drawn one
  bool raw_logprobs = false;  // report the model's own distribution (T = 1), too
};

// Makes a model think on when it would stop (Muennighoff et al. 2025; paper, App. I).
struct BudgetForcing {
  int64_t extensions = 0;                       // 0: off
  int64_t extension_tokens = 0;                 // at most, of one extension
  std::vector<uint32_t> end_tokens;             // an extension ends where one of these is drawn
  std::vector<std::vector<uint32_t>> prefixes;  // extension k begins with prefixes[k % size]
};

enum class Priority { kTraining = 0, kEvaluation = 1 };

// n samples of one prompt.
struct RolloutRequest {
  uint64_t id = 0;       // chosen by the caller; unique among live requests
  uint64_t client = 0;   // whose it is: what pauses together
  uint64_t account = 0;  // accounts share the engine fairly; a client's requests have one
  Priority priority = Priority::kTraining;
  std::vector<uint32_t> prompt;
  int64_t n = 1;
  int64_t budget = 0;  // response tokens at most, forced ones included
  SamplingParams sampling;
  uint64_t seed = 0;
  uint32_t first_sample = 0;
  std::vector<uint32_t> response_prefix;  // already generated; n must be 1
  std::vector<bool> prefix_forced;        // which of them were forced; empty: none
  std::vector<uint32_t> stop_token_ids;   // besides the model's own
  std::vector<std::string> stop_strings;
  BudgetForcing forcing;
  bool prompt_logprobs = false;  // log-probabilities of the prompt's tokens, too
};

}  // namespace e3

#endif  // E3_ROLLOUT_SERVER_REQUEST_H_
