// A model as a rollout server holds it: what runs the engine's batches, and where new weights go.
// The engine thread knows no more of it than this, so it is driven without LibTorch in tests.
#ifndef E3_ROLLOUT_SERVER_SERVED_MODEL_H_
#define E3_ROLLOUT_SERVER_SERVED_MODEL_H_

#include <memory>
#include <string>
#include <vector>

#include "model/parameters.h"
#include "model/prompt_encoder.h"
#include "rollout_server/model_runner.h"

namespace e3 {

class ServedModel {
 public:
  virtual ~ServedModel() = default;

  virtual ModelRunner& runner() = 0;
  // Blocks of the runner's cache.
  virtual int32_t num_blocks() const = 0;
  virtual int64_t context_length() const = 0;
  virtual const std::vector<uint32_t>& eos_token_ids() const = 0;
  // The tensors of an upload, in order; they lie one behind the other in one buffer.
  virtual const std::vector<ParameterSlot>& slots() const = 0;
  // Replaces the weights. On the engine thread, between steps.
  virtual void SetParameters(const std::vector<float>& parameters) = 0;
  // Null for a folder without a tokenizer. Thread-safe.
  virtual std::shared_ptr<const PromptEncoder> encoder() const = 0;
};

}  // namespace e3

#endif  // E3_ROLLOUT_SERVER_SERVED_MODEL_H_
