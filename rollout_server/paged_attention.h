// Attention over the paged KV cache, as a plug of the transformer: stores a batch's keys and values
// and attends to what is there.
#ifndef E3_ROLLOUT_SERVER_PAGED_ATTENTION_H_
#define E3_ROLLOUT_SERVER_PAGED_ATTENTION_H_

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "model/attention.h"
#include "rollout_server/model_runner.h"

namespace e3 {

// Keys and values of all blocks and layers, fp32.
class KvCache {
 public:
  virtual ~KvCache() = default;
  virtual void Copy(const std::vector<BlockCopy>& copies) = 0;
  // For one step; `batch` and the cache outlive it.
  virtual std::unique_ptr<Attention> ForBatch(const Batch& batch) = 0;
};

// On the CPU, with the project's attention kernel.
std::unique_ptr<KvCache> MakeFusedKvCache(const ModelConfig& config, int32_t num_blocks);

// On any device, composed of LibTorch's operators: correct, not fast.
std::unique_ptr<KvCache> MakeComposedKvCache(const ModelConfig& config, int32_t num_blocks,
                                             c10::Device device);

}  // namespace e3

#endif  // E3_ROLLOUT_SERVER_PAGED_ATTENTION_H_
