// What an update needs of memory, before it is begun.
#ifndef E3_LEARNER_MEMORY_NEED_H_
#define E3_LEARNER_MEMORY_NEED_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "e3/v1/job_spec.pb.h"
#include "model/config.h"

namespace e3 {

// Which memory: the host's of a learner that computes on the CPU; of one that computes on a GPU,
// the GPU's, and the host's, where the master weights are and the optimizer may be.
enum class MemoryOf { kHost, kGpu, kHostOfGpu };

// In bytes.
struct MemoryNeed {
  MemoryOf memory = MemoryOf::kHost;
  int64_t weights = 0;  // and the copy that products are made with
  int64_t gradients = 0;
  int64_t optimizer = 0;    // AdamW's two moments
  int64_t reference = 0;    // its parameters, and with a KL penalty a model of them
  int64_t copies = 0;       // of what is published and checkpointed while steps run
  int64_t activations = 0;  // of the largest micro-batch, between forward and backward pass
  int64_t logits = 0;       // of a chunk of tokens, and what products are packed into
  int64_t total() const {
    return weights + gradients + optimizer + reference + copies + activations + logits;
  }
  // "12.3 GiB of memory: weights 4.0, …".
  std::string Describe() const;
};

// `longest`: tokens of the longest sequence (prompt and response), which is never split. `shards`:
// ranks among which the optimizer's state is divided.
MemoryNeed ComputeMemoryNeed(MemoryOf memory, const ModelConfig& model,
                             const v1::Training& training, int64_t longest, int shards = 1);

// Tokens of the longest sequence that a stage with this budget learns from.
int64_t LongestSequence(const ModelConfig& model, const v1::JobSpec& job, int64_t budget);

// What this process may use: its share, of `processes` on this host, of the memory that is
// available within the limit of its control group, and what it has already.
int64_t AvailableMemory(int processes = 1);

// OutOfRange, with the numbers and what to change, when the need is above `available`.
absl::Status CheckMemory(MemoryOf memory, const ModelConfig& model, const v1::Training& training,
                         int64_t longest, int64_t available, int shards = 1);

}  // namespace e3

#endif  // E3_LEARNER_MEMORY_NEED_H_
