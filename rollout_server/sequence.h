// A sample on its way through the engine, and what a step produces of it.
#ifndef E3_ROLLOUT_SERVER_SEQUENCE_H_
#define E3_ROLLOUT_SERVER_SEQUENCE_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "rollout_server/block_manager.h"
#include "rollout_server/budget_forcing.h"
#include "rollout_server/request.h"

namespace e3 {

using Clock = std::chrono::steady_clock;

enum class Finish {
  kNone,
  kStop,       // an end-of-sequence or stop token, or a stop string
  kLength,     // the budget is used up
  kCancelled,  // by the client
  kCut,        // by a change of weights whose policy says so
  kBroken,     // the model's logits are not finite
};

struct TopToken {
  uint32_t token;
  float logprob;
};

struct OutputToken {
  uint32_t token = 0;
  float logprob = 0;          // ln softmax(logits / T)[token]: the policy's, nothing cut or added
  float sampled_logprob = 0;  // under the distribution that was drawn from (greedy: 0)
  float entropy = 0;          // nats, of softmax(logits / T)
  float raw_logprob = 0;      // ln softmax(logits)[token], and its entropy: where asked for
  float raw_entropy = 0;
  bool forced = false;        // appended by budget forcing, not drawn; the numbers are 0
  std::vector<TopToken> top;  // most likely first, by the raw distribution if asked for, else the
                              // policy's
};

// What a step did for one sample.
struct SampleOutput {
  uint64_t request_id = 0;
  uint32_t sample = 0;
  absl::InlinedVector<OutputToken, 1> tokens;  // more than one where tokens were forced
  Finish finish = Finish::kNone;
  // With the first output of sample 0, when asked for: tokens 1, 2, … of the prompt.
  std::vector<OutputToken> prompt_tokens;
  bool first = false;        // the sample's first output
  double queue_seconds = 0;  // first: from arrival to admission
  double since_seconds = 0;  // since the output before; first: since arrival
};

struct Sequence {
  std::shared_ptr<const RolloutRequest> request;
  uint32_t sample = 0;  // index within the request
  uint32_t draw = 0;    // first_sample + sample: the key of its random numbers

  std::vector<uint32_t> tokens;  // prompt, then response
  ForcingState forcing;
  std::vector<OutputToken> prompt_tokens;

  // Tokens whose keys and values are in the cache; the block table covers at least these.
  int64_t computed = 0;
  std::vector<int32_t> block_table;
  // The first `published` blocks are known to the prefix cache, as `prefix`. Not `publishable`:
  // keys and values of several weight versions are mixed.
  int64_t published = 0;
  PrefixId prefix = 0;
  bool publishable = true;

  // Samples that start from this one's prompt blocks once it is computed (only before the fork).
  std::vector<uint32_t> siblings;

  // The scheduler's: the step that last computed something of it, and its place in line.
  uint64_t scheduled_step = 0;
  uint64_t arrival_step = 0, arrival = 0;
  Clock::time_point arrived, admitted, last_output;
  bool has_output = false;

  // Its prompt's log-probabilities are still wanted.
  bool scores_prompt() const { return request->prompt_logprobs && !has_output; }
  int64_t length() const { return static_cast<int64_t>(tokens.size()); }
  int64_t prompt_length() const { return static_cast<int64_t>(request->prompt.size()); }
  int64_t response_length() const { return length() - prompt_length(); }
};

}  // namespace e3

#endif  // E3_ROLLOUT_SERVER_SEQUENCE_H_
