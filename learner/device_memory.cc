#include "learner/device_memory.h"

#include "learner/memory_need.h"
#include "model/device.h"
#include "services/runtime/status_macros.h"

namespace e3 {

absl::Status CheckMemory(const ModelConfig& model, const v1::Training& training, int64_t longest,
                         c10::Device device, int neighbours) {
  if (device.is_cuda()) {
    E3_RETURN_IF_ERROR(
        CheckMemory(MemoryOf::kGpu, model, training, longest, AvailableDeviceMemory(device)));
  }
  return CheckMemory(device.is_cuda() ? MemoryOf::kHostOfGpu : MemoryOf::kHost, model, training,
                     longest, AvailableMemory(neighbours));
}

}  // namespace e3
