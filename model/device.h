// Where a model computes.
#ifndef E3_MODEL_DEVICE_H_
#define E3_MODEL_DEVICE_H_

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace e3 {

// "cpu", "cuda" or "cuda:N". Sets environment variables for a GPU: to be called while there are few
// threads. A GPU's operators are made deterministic, for the process: the same inputs in the same
// batch give the same bits. InvalidArgument for another name; FailedPrecondition when this build or
// this machine does not have the device.
absl::StatusOr<c10::Device> ParseDevice(const std::string& name);

// From now on the process keeps memory that is freed. For training: every micro-batch allocates
// what the one before has freed, and each page would be made anew.
void KeepFreedMemory();

// Bytes of a GPU's memory: what is free, with what this process keeps for later; and the most that
// tensors of this process have held at once.
int64_t AvailableDeviceMemory(c10::Device gpu);
int64_t PeakDeviceMemory(c10::Device gpu);

// The rate in FLOP/s that the largest of a transformer's products runs at there, with operands in
// `dtype` (Projection::MultiplyIn) and the threads that OpenMP has: measured when it is first asked
// for, in about a tenth of a second. Thread-safe.
double PeakFlops(c10::Device device, c10::ScalarType dtype);

}  // namespace e3

#endif  // E3_MODEL_DEVICE_H_
