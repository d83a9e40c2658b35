#include <string.h>

#include "model/packed_matrix_kernel.h"

namespace e3 {
namespace {
constexpr int kLanes = 16, kVectors = 2, kTileRows = 12;
#include "model/packed_matrix_kernel.inc"
}  // namespace

void PanelProductAvx512(const float* x, int64_t inputs, int64_t rows, const float* panel,
                        const float* bias, float* y, int64_t y_stride, int64_t width) {
  PanelProductImpl(x, inputs, rows, panel, bias, y, y_stride, width);
}

}  // namespace e3
