#include "model/device.h"

#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/full.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <malloc.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <map>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/operators.h"
#include "services/runtime/stopwatch.h"

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
  setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);
  at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
  at::globalContext().setDeterministicFillUninitializedMemory(false);
  return device;
#else
  return absl::FailedPreconditionError(
      absl::StrCat("this build has no ", name, " (make build-cuda makes one that has)"));
#endif
}

namespace {

c10::CachingDeviceAllocator::DeviceStats StatsOf(c10::Device gpu) {
  at::globalContext().lazyInitDevice(gpu.type());
  return at::getDeviceAllocator(gpu.type())->getDeviceStats(std::max<int>(0, gpu.index()));
}

}  // namespace

void KeepFreedMemory() {
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
}

int64_t AvailableDeviceMemory(c10::Device gpu) {
  const auto stats = StatsOf(gpu);
  const auto [available, total] =
      at::getDeviceAllocator(gpu.type())->getMemoryInfo(std::max<int>(0, gpu.index()));
  return static_cast<int64_t>(available) + stats.reserved_bytes[0].current;
}

int64_t PeakDeviceMemory(c10::Device gpu) { return StatsOf(gpu).allocated_bytes[0].peak; }

double PeakFlops(c10::Device device, c10::ScalarType dtype) {
  static std::mutex mutex;
  static auto* measured = new std::map<std::pair<std::string, c10::ScalarType>, double>;
  std::lock_guard<std::mutex> lock(mutex);
  double& best = (*measured)[{device.str(), dtype}];
  if (best > 0) return best;
  at::NoGradGuard no_grad;
  const int64_t rows = device.is_cpu() ? 512 : 8192, size = device.is_cpu() ? 1024 : 8192;
  const at::TensorOptions options = at::TensorOptions(device).dtype(at::kFloat);
  Projection projection;
  projection.weight = at::full({size, size}, 0.5, options);
  projection.MultiplyIn(dtype);
  const at::Tensor x = at::full({rows, size}, 0.25, options).to(dtype);
  auto multiply = [&] { Linear(x, projection)[0][0].item<float>(); };  // and waits for a GPU
  multiply();  // wakes threads, chooses kernels
  for (Stopwatch all; all.Seconds() < 0.1;) {
    Stopwatch once;
    multiply();
    best = std::max(best, 2.0 * static_cast<double>(rows * size * size) / once.Seconds());
  }
  return best;
}

}  // namespace e3
