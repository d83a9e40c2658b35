// The inner loops of PackedMatrix, compiled once for each width of vectors (packed_matrix_*.cc).
#ifndef E3_MODEL_PACKED_MATRIX_KERNEL_H_
#define E3_MODEL_PACKED_MATRIX_KERNEL_H_

#include <cstdint>

namespace e3 {

inline constexpr int64_t kPanelWidth = 32;  // outputs of a panel

// Rows of a tile of the widest kernel.
inline constexpr int64_t kMostTileRows = 12;

// The left operand of a product: `rows` rows of `depth` floats.
struct ProductRows {
  const float* x;
  int64_t stride;  // floats between rows
  int64_t rows;
  int64_t depth;
  int64_t step = 1;  // floats between the elements of a row
};

// Where a product goes: `width` columns, `stride` floats between rows.
struct ProductOutput {
  float* y;
  int64_t stride;
  int64_t width;
  const float* bias;  // [width], added last; null: none
  bool accumulate;    // y += instead of y =
};

// One panel's outputs: y[r][0 … width) = sum over k of x[r][k] * panel[k] + bias. `panel`
// [depth][32]; width <= 32.
using PanelProduct = void (*)(const ProductRows& x, const float* panel, const ProductOutput& out);

void PanelProductAvx2(const ProductRows& x, const float* panel, const ProductOutput& out);
void PanelProductAvx512(const ProductRows& x, const float* panel, const ProductOutput& out);

}  // namespace e3

#endif  // E3_MODEL_PACKED_MATRIX_KERNEL_H_
