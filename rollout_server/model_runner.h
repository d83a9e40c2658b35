// Runs a model on a batch of tokens over the paged KV cache, as the engine sees it.
#ifndef E3_ROLLOUT_SERVER_MODEL_RUNNER_H_
#define E3_ROLLOUT_SERVER_MODEL_RUNNER_H_

#include <cstdint>
#include <vector>

#include "rollout_server/scheduler.h"

namespace e3 {

// The flattened tokens of a step.
struct Batch {
  std::vector<int64_t> token_ids;
  std::vector<int64_t> positions;
  // Where a token's key and value go: block * 16 + row.
  std::vector<int64_t> slots;
  // The block table of the token's sequence; it attends to positions + 1 rows of it.
  std::vector<const int32_t*> block_tables;
  // Tokens whose logits are wanted, in order.
  std::vector<int64_t> logit_rows;
  // Blocks to copy before anything is written.
  std::vector<BlockCopy> copies;
};

// Not thread-safe.
class ModelRunner {
 public:
  virtual ~ModelRunner() = default;
  // Logits [logit_rows.size(), vocab_size], row-major; valid until the next call.
  virtual const float* Run(const Batch& batch) = 0;
  virtual int64_t vocab_size() const = 0;
};

}  // namespace e3

#endif  // E3_ROLLOUT_SERVER_MODEL_RUNNER_H_
