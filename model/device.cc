#include "model/device.h"

#include <ATen/Context.h>

#include "absl/strings/str_cat.h"

namespace e3 {

absl::StatusOr<c10::Device> ParseDevice(const std::string& name) {
  c10::Device device(c10::kCPU);
  try {
    device = c10::Device(name);
  } catch (const std::exception&) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", name, "' is not a device: cpu, cuda or cuda:N"));
  }
  if (device.is_cpu()) return device;
  if (!device.is_cuda())
    return absl::InvalidArgumentError(absl::StrCat("'", name, "' is not cpu, cuda or cuda:N"));
#ifdef E3_CUDA
  const int devices = at::getNumGPUs();
  if (devices == 0) return absl::FailedPreconditionError("this machine has no GPU that CUDA finds");
  if (device.has_index() && device.index() >= devices) {
    return absl::FailedPreconditionError(
        absl::StrCat(name, " is not there: this machine has ", devices, " GPUs"));
  }
  return device;
#else
  return absl::FailedPreconditionError(
      absl::StrCat("this build has no ", name, " (make build-cuda makes one that has)"));
#endif
}

}  // namespace e3
