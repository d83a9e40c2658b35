// The check of what updates need against the memory of where they are computed.
#ifndef E3_LEARNER_DEVICE_MEMORY_H_
#define E3_LEARNER_DEVICE_MEMORY_H_

#include <c10/core/Device.h>

#include <cstdint>

#include "absl/status/status.h"
#include "e3/v1/job_spec.pb.h"
#include "model/config.h"

namespace e3 {

// What a rank shares with others.
struct RankShares {
  int neighbours = 1;  // ranks on its host, itself included, which have equal shares of its memory
  int shards = 1;      // ranks among which the optimizer's state is divided
};

// Of updates on `device` and, where that is a GPU, also of the host. OutOfRange as CheckMemory.
absl::Status CheckMemory(const ModelConfig& model, const v1::Training& training, int64_t longest,
                         c10::Device device, const RankShares& shares = {});

}  // namespace e3

#endif  // E3_LEARNER_DEVICE_MEMORY_H_
