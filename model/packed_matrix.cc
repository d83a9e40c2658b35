#include "model/packed_matrix.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <vector>

#include "model/huge_pages.h"
#include "model/packed_matrix_kernel.h"

namespace e3 {
namespace {

int64_t Panels(int64_t outputs) { return (outputs + kPanelWidth - 1) / kPanelWidth; }

// Rows of a block: its inputs stay in the second-level cache while the panels pass by. Blocks are
// of equal size but for the last.
int64_t BlockRows(int64_t rows, int64_t depth) {
  constexpr int64_t kBytes = 384 << 10, kTileRows = kMostTileRows;
  const int64_t most =
      std::max<int64_t>(kTileRows, kBytes / (depth * static_cast<int64_t>(sizeof(float))));
  const int64_t blocks = (rows + most - 1) / most;
  return ((rows + blocks - 1) / blocks + kTileRows - 1) / kTileRows * kTileRows;
}

PanelProduct BestPanelProduct() {
  static const PanelProduct product =
      __builtin_cpu_supports("avx512f") ? PanelProductAvx512 : PanelProductAvx2;
  return product;
}

// Multiply-adds below which waking threads costs more than the product.
constexpr int64_t kWorthThreads = 1 << 18;

// The three below are the work of a team of threads (or of one), which waits for itself at the end.

// `panels` [ceil(out.width / 32)][x.depth][32].
void MultiplyPanels(const ProductRows& x, const float* panels, const ProductOutput& out) {
  const PanelProduct product = BestPanelProduct();
  const int64_t num_panels = Panels(out.width);
  const int64_t block = BlockRows(x.rows, x.depth), blocks = (x.rows + block - 1) / block;
#pragma omp for collapse(2) schedule(static)
  for (int64_t b = 0; b < blocks; ++b) {
    for (int64_t p = 0; p < num_panels; ++p) {
      const int64_t first = b * block, column = p * kPanelWidth;
      product({x.x + first * x.stride, x.stride, std::min(block, x.rows - first), x.depth},
              panels + p * x.depth * kPanelWidth,
              {out.y + first * out.stride + column, out.stride,
               std::min(kPanelWidth, out.width - column),
               out.bias != nullptr ? out.bias + column : nullptr, out.accumulate});
    }
  }
}

// kWidth floats of every row, from column `first` on: to [rows][kWidth], where there are fewer
// columns padded with zeros.
template <int64_t kWidth>
void PackStrip(const float* matrix, int64_t rows, int64_t columns, int64_t first, float* to) {
  const float* from = matrix + first;
  if (columns - first >= kWidth) {
    // Of a constant size: a few moves instead of a call.
    for (int64_t k = 0; k < rows; ++k)
      memcpy(to + k * kWidth, from + k * columns, kWidth * sizeof(float));
    return;
  }
  for (int64_t k = 0; k < rows; ++k) {
    for (int64_t j = 0; j < kWidth; ++j)
      to[k * kWidth + j] = j < columns - first ? from[k * columns + j] : 0.0f;
  }
}

// panels [ceil(columns / 32)][rows][32] of a row-major matrix whose rows are what is summed over.
void PackColumns(const float* matrix, int64_t rows, int64_t columns, float* panels) {
  const int64_t num_panels = Panels(columns);
#pragma omp for schedule(static)
  for (int64_t p = 0; p < num_panels; ++p) {
    PackStrip<kPanelWidth>(matrix, rows, columns, p * kPanelWidth, panels + p * rows * kPanelWidth);
  }
}

// tiles [ceil(columns / 12)][rows][12]: columns of a row-major matrix as rows of a left operand.
void PackTiles(const float* matrix, int64_t rows, int64_t columns, float* tiles) {
  constexpr int64_t kTile = kMostTileRows;
  const int64_t num_tiles = (columns + kTile - 1) / kTile;
#pragma omp for schedule(static)
  for (int64_t t = 0; t < num_tiles; ++t) {
    PackStrip<kTile>(matrix, rows, columns, t * kTile, tiles + t * rows * kTile);
  }
}

// A buffer that a thread uses again.
float* Buffer(std::vector<float>& buffer, int64_t floats) {
  if (static_cast<int64_t>(buffer.size()) < floats) buffer.resize(static_cast<size_t>(floats));
  return buffer.data();
}

}  // namespace

PackedMatrix::PackedMatrix(int64_t outputs, int64_t inputs) : outputs_(outputs), inputs_(inputs) {
  const size_t bytes = std::max<size_t>(
      64, static_cast<size_t>(Panels(outputs) * inputs * kPanelWidth) * sizeof(float));
  void* memory = aligned_alloc(64, bytes);
  if (memory == nullptr) throw std::bad_alloc();
  AdviseHugePages(memory, bytes);
  panels_.reset(static_cast<float*>(memory));
}

void PackedMatrix::Pack(const float* weight) {
  const int64_t panels = Panels(outputs_);
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
#pragma omp parallel if (rows * outputs_ * inputs_ >= kWorthThreads)
  MultiplyPanels({x, inputs_, rows, inputs_}, panels_.get(), {y, outputs_, outputs_, bias, false});
}

void ProductInputGradient(const float* d_y, int64_t rows, const float* weight, int64_t outputs,
                          int64_t inputs, float* d_x) {
  constexpr int64_t kFloats = 4 << 20;  // of weights packed at a time
  thread_local std::vector<float> packed;
  const int64_t width = Panels(inputs) * kPanelWidth;
  const int64_t chunk = std::min(outputs, std::max<int64_t>(256, kFloats / width));
  float* panels = Buffer(packed, chunk * width);
#pragma omp parallel if (rows * outputs * inputs >= kWorthThreads)
  for (int64_t o = 0; o < outputs; o += chunk) {
    const int64_t depth = std::min(chunk, outputs - o);
    PackColumns(weight + o * inputs, depth, inputs, panels);
    MultiplyPanels({d_y + o, outputs, rows, depth}, panels, {d_x, inputs, inputs, nullptr, o > 0});
  }
}

void AddProductWeightGradient(const float* d_y, const float* x, int64_t rows, int64_t outputs,
                              int64_t inputs, float* d_weight) {
  constexpr int64_t kChunk = 1024;                       // rows summed in one chain
  constexpr int64_t kTile = kMostTileRows, kGroup = 16;  // tiles that share a pass over a panel
  thread_local std::vector<float> packed, tiled;
  const int64_t most = std::min(rows, kChunk), num_panels = Panels(inputs);
  const int64_t tiles = (outputs + kTile - 1) / kTile, groups = (tiles + kGroup - 1) / kGroup;
  float* panels = Buffer(packed, most * num_panels * kPanelWidth);
  float* d_y_tiles = Buffer(tiled, most * tiles * kTile);
#pragma omp parallel if (rows * outputs * inputs >= kWorthThreads)
  for (int64_t r = 0; r < rows; r += kChunk) {
    const int64_t depth = std::min(kChunk, rows - r);
    PackColumns(x + r * inputs, depth, inputs, panels);
    PackTiles(d_y + r * outputs, depth, outputs, d_y_tiles);
#pragma omp for collapse(2) schedule(static)
    for (int64_t p = 0; p < num_panels; ++p) {
      for (int64_t g = 0; g < groups; ++g) {
        const int64_t column = p * kPanelWidth, width = std::min(kPanelWidth, inputs - column);
        for (int64_t t = g * kGroup; t < std::min(tiles, (g + 1) * kGroup); ++t) {
          BestPanelProduct()(
              {d_y_tiles + t * depth * kTile, 1, std::min(kTile, outputs - t * kTile), depth,
               kTile},
              panels + p * depth * kPanelWidth,
              {d_weight + t * kTile * inputs + column, inputs, width, nullptr, true});
        }
      }
    }
  }
}

}  // namespace e3
