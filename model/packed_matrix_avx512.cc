#include <string.h>

#include "model/packed_matrix_kernel.h"

namespace e3 {
namespace {
constexpr int kLanes = 16, kVectors = 2, kTileRows = 12;
#include "model/packed_matrix_kernel.inc"
}  // namespace

void PanelProductAvx512(const ProductRows& x, const float* panel, const ProductOutput& out) {
  PanelProductImpl(x, panel, out);
}

}  // namespace e3
