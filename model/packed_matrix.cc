#include "model/packed_matrix.h"

#include <algorithm>
#include <new>

#include "model/huge_pages.h"
#include "model/packed_matrix_kernel.h"

namespace e3 {
namespace {

// Rows of a block: its inputs stay in the second-level cache while the panels pass by. Blocks are
// of equal size but for the last.
int64_t BlockRows(int64_t rows, int64_t inputs) {
  constexpr int64_t kBytes = 384 << 10, kTileRows = 12;
  const int64_t most =
      std::max<int64_t>(kTileRows, kBytes / (inputs * static_cast<int64_t>(sizeof(float))));
  const int64_t blocks = (rows + most - 1) / most;
  return ((rows + blocks - 1) / blocks + kTileRows - 1) / kTileRows * kTileRows;
}

PanelProduct BestPanelProduct() {
  return __builtin_cpu_supports("avx512f") ? PanelProductAvx512 : PanelProductAvx2;
}

}  // namespace

PackedMatrix::PackedMatrix(int64_t outputs, int64_t inputs) : outputs_(outputs), inputs_(inputs) {
  const int64_t panels = (outputs + kPanelWidth - 1) / kPanelWidth;
  const size_t bytes =
      std::max<size_t>(64, static_cast<size_t>(panels * inputs * kPanelWidth) * sizeof(float));
  void* memory = aligned_alloc(64, bytes);
  if (memory == nullptr) throw std::bad_alloc();
  AdviseHugePages(memory, bytes);
  panels_.reset(static_cast<float*>(memory));
}

void PackedMatrix::Pack(const float* weight) {
  const int64_t panels = (outputs_ + kPanelWidth - 1) / kPanelWidth;
#pragma omp parallel for schedule(static)
  for (int64_t p = 0; p < panels; ++p) {
    float* panel = panels_.get() + p * inputs_ * kPanelWidth;
    const int64_t width = std::min(kPanelWidth, outputs_ - p * kPanelWidth);
    for (int64_t k = 0; k < inputs_; ++k) {
      float* to = panel + k * kPanelWidth;
      for (int64_t j = 0; j < width; ++j) to[j] = weight[(p * kPanelWidth + j) * inputs_ + k];
      std::fill(to + width, to + kPanelWidth, 0.0f);
    }
  }
}

void PackedMatrix::Multiply(const float* x, int64_t rows, const float* bias, float* y) const {
  if (rows == 0) return;
  static const PanelProduct product = BestPanelProduct();
  const int64_t panels = (outputs_ + kPanelWidth - 1) / kPanelWidth;
  const int64_t block = BlockRows(rows, inputs_), blocks = (rows + block - 1) / block;
  // Waking threads costs more than a small product.
  constexpr int64_t kWorthThreads = 1 << 18;
#pragma omp parallel for collapse(2) \
    schedule(static) if (rows * outputs_ * inputs_ >= kWorthThreads && panels * blocks > 1)
  for (int64_t b = 0; b < blocks; ++b) {
    for (int64_t p = 0; p < panels; ++p) {
      const int64_t first = b * block, column = p * kPanelWidth;
      product(x + first * inputs_, inputs_, std::min(block, rows - first),
              panels_.get() + p * inputs_ * kPanelWidth, bias ? bias + column : nullptr,
              y + first * outputs_ + column, outputs_, std::min(kPanelWidth, outputs_ - column));
    }
  }
}

}  // namespace e3
