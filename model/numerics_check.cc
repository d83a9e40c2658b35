#include "model/numerics_check.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/packed_matrix.h"
#include "model/packed_matrix_kernel.h"
#include "model/row_kernels.h"

namespace e3 {

absl::Status CheckNumerics() {
  constexpr int64_t kRows = 40, kInputs = 576, kOutputs = 96;
  auto numbers = [](int64_t n, float step) {
    std::vector<float> v(static_cast<size_t>(n));
    for (size_t i = 0; i < v.size(); ++i) v[i] = std::sin(step * static_cast<float>(i));
    return v;
  };
  const std::vector<float> x = numbers(kRows * kInputs, 0.7f),
                           weight = numbers(kOutputs * kInputs, 1.3f);
  PackedMatrix packed(kOutputs, kInputs);
  packed.Pack(weight.data());
  std::vector<float> all(kRows * kOutputs), some(all.size()), norms(x.size()), norm(kInputs);
  packed.Multiply(x.data(), kRows, nullptr, all.data());
  for (int64_t rows : {1, 2, 3, 5, 7, 8, 11, 12, 13, 31}) {
    packed.Multiply(x.data(), rows, nullptr, some.data());
    if (memcmp(some.data(), all.data(), static_cast<size_t>(rows * kOutputs) * sizeof(float)) != 0)
      return absl::InternalError(absl::StrCat("a product of ", rows, " rows differs from one of ",
                                              kRows, " on this processor"));
  }
  if (__builtin_cpu_supports("avx512f")) {
    std::vector<float> narrow(kRows * kPanelWidth), wide(narrow.size());
    PanelProductAvx2({x.data(), kInputs, kRows, kInputs}, weight.data(),
                     {narrow.data(), kPanelWidth, kPanelWidth, nullptr, false});
    PanelProductAvx512({x.data(), kInputs, kRows, kInputs}, weight.data(),
                       {wide.data(), kPanelWidth, kPanelWidth, nullptr, false});
    if (narrow != wide)
      return absl::InternalError("AVX2 and AVX-512 products differ on this processor");
  }
  RmsNormRows(x.data(), kRows, kInputs, weight.data(), 1e-6f, norms.data(), nullptr);
  RmsNormRows(x.data() + 7 * kInputs, 1, kInputs, weight.data(), 1e-6f, norm.data(), nullptr);
  if (memcmp(norm.data(), norms.data() + 7 * kInputs, norm.size() * sizeof(float)) != 0)
    return absl::InternalError("the norm of a row depends on the batch on this processor");
  return absl::OkStatus();
}

}  // namespace e3
