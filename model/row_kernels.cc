#include "model/row_kernels.h"

#include <algorithm>
#include <cmath>

#include "model/vector_math.h"

namespace e3 {
namespace {

// Floats below which waking threads costs more than the work.
constexpr int64_t kWorthThreads = 1 << 14;

// 1 / sqrt(mean(x²) + epsilon).
inline float InverseRms(const float* x, int64_t dim, float epsilon) {
  Vec sum = Splat(0);
  for (int64_t i = 0; i < dim; i += kLanes) sum += Load(x + i) * Load(x + i);
  return 1.0f / std::sqrt(Sum(sum) / static_cast<float>(dim) + epsilon);
}

inline void ScaleRow(const float* x, int64_t dim, const float* weight, float scale, float* y) {
  for (int64_t i = 0; i < dim; i += kLanes)
    Store(y + i, Load(x + i) * Splat(scale) * Load(weight + i));
}

// d_x of y = x * scale(x) * weight for one row; its part of the weight's gradient is added to
// `sum`.
inline void NormRowBackward(const float* x, int64_t dim, const float* weight, float scale,
                            const float* d_y, float* d_x, float* sum) {
  Vec dot = Splat(0);
  for (int64_t i = 0; i < dim; i += kLanes) dot += Load(d_y + i) * Load(weight + i) * Load(x + i);
  const Vec k = Splat(Sum(dot) * scale * scale * scale / static_cast<float>(dim));
  for (int64_t i = 0; i < dim; i += kLanes) {
    const Vec in = Load(x + i), scaled = Load(d_y + i) * Splat(scale);
    Store(sum + i, Load(sum + i) + scaled * in);
    Store(d_x + i, scaled * Load(weight + i) - in * k);
  }
}

// Calls f(r, sum) for every row, where `sum` [dim] takes what the row adds to `total` [dim]. Rows
// are summed up in groups of a constant size and the groups in order, so the result does not depend
// on the number of threads.
template <typename F>
void SumOverRows(int64_t rows, int64_t dim, F f, float* total) {
  constexpr int64_t kRows = 64;
  const int64_t groups = (rows + kRows - 1) / kRows;
  std::vector<float> sums(static_cast<size_t>(groups * dim));
#pragma omp parallel for schedule(static) if (rows * dim >= kWorthThreads)
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t r = g * kRows; r < std::min(rows, (g + 1) * kRows); ++r)
      f(r, sums.data() + g * dim);
  }
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t i = 0; i < dim; ++i) total[i] += sums[static_cast<size_t>(g * dim + i)];
  }
}

// 1 / (1 + e^-x).
inline Vec Sigmoid(Vec x) {
  const Vec e = Exp(x < Splat(0) ? x : -x);  // of a number that is not positive
  const Vec inverse = Splat(1) / (Splat(1) + e);
  return x < Splat(0) ? e * inverse : inverse;
}

}  // namespace

void RmsNormRows(const float* x, int64_t rows, int64_t dim, const float* weight, float epsilon,
                 float* y, float* scale) {
#pragma omp parallel for schedule(static) if (rows * dim >= kWorthThreads)
  for (int64_t r = 0; r < rows; ++r) {
    const float s = InverseRms(x + r * dim, dim, epsilon);
    if (scale != nullptr) scale[r] = s;
    ScaleRow(x + r * dim, dim, weight, s, y + r * dim);
  }
}

void AddRmsNormRows(const float* x, const float* y, int64_t rows, int64_t dim, const float* weight,
                    float epsilon, float* sum, float* normalised, float* scale) {
#pragma omp parallel for schedule(static) if (rows * dim >= kWorthThreads)
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = r * dim; i < (r + 1) * dim; i += kLanes)
      Store(sum + i, Load(x + i) + Load(y + i));
    const float s = InverseRms(sum + r * dim, dim, epsilon);
    if (scale != nullptr) scale[r] = s;
    ScaleRow(sum + r * dim, dim, weight, s, normalised + r * dim);
  }
}

void RmsNormRowsBackward(const float* x, int64_t rows, int64_t dim, const float* weight,
                         const float* scale, const float* d_y, const float* d_besides, float* d_x,
                         float* d_weight) {
  SumOverRows(
      rows, dim,
      [&](int64_t r, float* sum) {
        const int64_t at = r * dim;
        NormRowBackward(x + at, dim, weight, scale[r], d_y + at, d_x + at, sum);
        if (d_besides == nullptr) return;
        for (int64_t i = at; i < at + dim; i += kLanes)
          Store(d_x + i, Load(d_x + i) + Load(d_besides + i));
      },
      d_weight);
}

RotaryTable::RotaryTable(std::vector<float> inverse_frequencies, int64_t max_positions)
    : inverse_frequencies_(std::move(inverse_frequencies)) {
  for (int64_t p = 0; p < max_positions; p += kSegment)
    segments_.push_back(std::make_unique<Segment>());
}

const float* RotaryTable::Row(int64_t position) const {
  Segment& segment = *segments_[static_cast<size_t>(position / kSegment)];
  const size_t half = inverse_frequencies_.size();
  std::call_once(segment.once, [&] {
    segment.values.resize(static_cast<size_t>(kSegment) * 2 * half);
    float* out = segment.values.data();
    for (int64_t p = position / kSegment * kSegment, end = p + kSegment; p < end; ++p) {
      for (size_t i = 0; i < half; ++i) {
        // The angle in fp32, as transformers computes it.
        const float angle = static_cast<float>(p) * inverse_frequencies_[i];
        out[i] = static_cast<float>(std::cos(static_cast<double>(angle)));
        out[half + i] = static_cast<float>(std::sin(static_cast<double>(angle)));
      }
      out += 2 * half;
    }
  });
  return segment.values.data() + static_cast<size_t>(position % kSegment) * 2 * half;
}

void NormRotateRows(const HeadRows& shape, const float* x, const int64_t* positions,
                    const RotaryTable& table, float* y, float* scale) {
  const int64_t dim = shape.head_dim, half = dim / 2;
#pragma omp parallel for schedule(static) if (shape.rows * shape.heads * dim >= kWorthThreads)
  for (int64_t r = 0; r < shape.rows; ++r) {
    const float* cos = table.Row(positions[r]);
    const float* sin = cos + half;
    for (int64_t h = 0; h < shape.heads; ++h) {
      const float* in = x + r * shape.stride + h * dim;
      float* out = y + (r * shape.heads + h) * dim;
      float normalised[256];
      if (shape.weight != nullptr) {
        const float s = InverseRms(in, dim, shape.epsilon);
        if (scale != nullptr) scale[r * shape.heads + h] = s;
        ScaleRow(in, dim, shape.weight, s, normalised);
        in = normalised;
      }
      for (int64_t i = 0; i < half; ++i) {
        out[i] = in[i] * cos[i] - in[half + i] * sin[i];
        out[half + i] = in[half + i] * cos[i] + in[i] * sin[i];
      }
    }
  }
}

void NormRotateRowsBackward(const HeadRows& shape, const float* x, const int64_t* positions,
                            const RotaryTable& table, const float* scale, const float* d_y,
                            float* d_x, float* d_weight) {
  const int64_t dim = shape.head_dim, half = dim / 2;
  auto row = [&](int64_t r, float* sum) {
    const float* cos = table.Row(positions[r]);
    const float* sin = cos + half;
    for (int64_t h = 0; h < shape.heads; ++h) {
      const int64_t head = r * shape.heads + h, at = r * shape.stride + h * dim;
      const float* d_out = d_y + head * dim;
      float d_normalised[256];
      float* d_in = shape.weight != nullptr ? d_normalised : d_x + at;
      for (int64_t i = 0; i < half; ++i) {
        d_in[i] = d_out[i] * cos[i] + d_out[half + i] * sin[i];
        d_in[half + i] = d_out[half + i] * cos[i] - d_out[i] * sin[i];
      }
      if (shape.weight != nullptr)
        NormRowBackward(x + at, dim, shape.weight, scale[head], d_in, d_x + at, sum);
    }
  };
  std::vector<float> ignored(static_cast<size_t>(dim));
  SumOverRows(shape.rows, dim, row, shape.weight != nullptr ? d_weight : ignored.data());
}

void SwiGluRows(const float* gate_up, int64_t rows, int64_t dim, float* y) {
#pragma omp parallel for schedule(static) if (rows * dim >= kWorthThreads)
  for (int64_t r = 0; r < rows; ++r) {
    const float* gate = gate_up + r * 2 * dim;
    const float* up = gate + dim;
    for (int64_t i = 0; i < dim; i += kLanes) {
      const Vec g = Load(gate + i);
      Store(y + r * dim + i, g * Sigmoid(g) * Load(up + i));
    }
  }
}

void SwiGluRowsBackward(const float* gate_up, int64_t rows, int64_t dim, const float* d_y,
                        float* d_gate_up) {
#pragma omp parallel for schedule(static) if (rows * dim >= kWorthThreads)
  for (int64_t r = 0; r < rows; ++r) {
    const float* gate = gate_up + r * 2 * dim;
    const float* up = gate + dim;
    float* d_gate = d_gate_up + r * 2 * dim;
    for (int64_t i = 0; i < dim; i += kLanes) {
      const Vec g = Load(gate + i), d = Load(d_y + r * dim + i), s = Sigmoid(g);
      Store(d_gate + i, d * Load(up + i) * s * (Splat(1) + g * (Splat(1) - s)));
      Store(d_gate + dim + i, d * g * s);
    }
  }
}

}  // namespace e3
