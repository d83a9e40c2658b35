#include "learner/device_memory.h"

#include <malloc.h>

#include "learner/memory_need.h"
#include "model/device.h"
#include "services/runtime/status_macros.h"

namespace e3 {

absl::Status CheckMemory(const ModelConfig& model, const v1::Training& training, int64_t longest,
                         c10::Device device, const RankShares& shares) {
  malloc_trim(0);  // what was freed counts as available
  if (device.is_cuda()) {
    E3_RETURN_IF_ERROR(CheckMemory(MemoryOf::kGpu, model, training, longest,
                                   AvailableDeviceMemory(device), shares.shards));
  }
  return CheckMemory(device.is_cuda() ? MemoryOf::kHostOfGpu : MemoryOf::kHost, model, training,
                     longest, AvailableMemory(shares.neighbours), shares.shards);
}

}  // namespace e3
