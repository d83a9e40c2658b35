// Runs the transformer over the paged KV cache.
#ifndef E3_ROLLOUT_SERVER_TRANSFORMER_RUNNER_H_
#define E3_ROLLOUT_SERVER_TRANSFORMER_RUNNER_H_

#include <cstdint>
#include <memory>

#include "rollout_server/model_runner.h"

namespace e3 {

class Transformer;

// `model` outlives it. Not thread-safe.
class TransformerRunner final : public ModelRunner {
 public:
  TransformerRunner(const Transformer* model, int32_t num_blocks);
  ~TransformerRunner() override;
  const float* Run(const Batch& batch) override;
  int64_t vocab_size() const override;

  // Bytes of one block over all layers, keys and values.
  static int64_t BlockBytes(const Transformer& model);

 private:
  struct State;
  const Transformer* model_;
  std::unique_ptr<State> state_;
};

}  // namespace e3

#endif  // E3_ROLLOUT_SERVER_TRANSFORMER_RUNNER_H_
