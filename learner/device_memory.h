// The check of what updates need against the memory of where they are computed.
#ifndef E3_LEARNER_DEVICE_MEMORY_H_
#define E3_LEARNER_DEVICE_MEMORY_H_

#include <c10/core/Device.h>

#include <cstdint>

#include "absl/status/status.h"
#include "e3/v1/job_spec.pb.h"
#include "model/config.h"

namespace e3 {

// Of updates on `device` and, where that is a GPU, also of the host. `neighbours`: ranks on this
// host, itself included, which have equal shares of its memory. OutOfRange as CheckMemory.
absl::Status CheckMemory(const ModelConfig& model, const v1::Training& training, int64_t longest,
                         c10::Device device, int neighbours);

}  // namespace e3

#endif  // E3_LEARNER_DEVICE_MEMORY_H_
