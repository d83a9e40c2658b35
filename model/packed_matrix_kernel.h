// The inner loops of PackedMatrix, compiled once for each width of vectors (packed_matrix_*.cc).
#ifndef E3_MODEL_PACKED_MATRIX_KERNEL_H_
#define E3_MODEL_PACKED_MATRIX_KERNEL_H_

#include <cstdint>

namespace e3 {

inline constexpr int64_t kPanelWidth = 32;  // outputs of a panel

// One panel's outputs of `rows` rows: y[r][0 … width) = bias + sum over k of x[r][k] * panel[k],
// with `y_stride` floats between rows of y and `inputs` between rows of x. `panel` [inputs][32];
// bias may be null; width <= 32.
using PanelProduct = void (*)(const float* x, int64_t inputs, int64_t rows, const float* panel,
                              const float* bias, float* y, int64_t y_stride, int64_t width);

void PanelProductAvx2(const float* x, int64_t inputs, int64_t rows, const float* panel,
                      const float* bias, float* y, int64_t y_stride, int64_t width);
void PanelProductAvx512(const float* x, int64_t inputs, int64_t rows, const float* panel,
                        const float* bias, float* y, int64_t y_stride, int64_t width);

}  // namespace e3

#endif  // E3_MODEL_PACKED_MATRIX_KERNEL_H_
