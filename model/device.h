// Where a model computes.
#ifndef E3_MODEL_DEVICE_H_
#define E3_MODEL_DEVICE_H_

#include <c10/core/Device.h>

#include <string>

#include "absl/status/statusor.h"

namespace e3 {

// "cpu", "cuda" or "cuda:N". InvalidArgument for another name; FailedPrecondition when this build
// or this machine does not have the device.
absl::StatusOr<c10::Device> ParseDevice(const std::string& name);

}  // namespace e3

#endif  // E3_MODEL_DEVICE_H_
