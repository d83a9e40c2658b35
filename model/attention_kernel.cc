#include "model/attention_kernel.h"

#include <algorithm>
#include <cmath>

#include "model/vector_math.h"

namespace e3 {
namespace {

inline int64_t RoundUp(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

// kVecs: vectors a head, as a constant where it is common (0: not known at compile time).
template <int kVecs>
inline float Dot(const float* a, const float* b, int64_t vecs) {
  const int64_t n = kVecs ? kVecs : vecs;
  Vec sum = Splat(0);
  for (int64_t i = 0; i < n; ++i) sum += Load(a + i * kLanes) * Load(b + i * kLanes);
  return Sum(sum);
}

template <int kVecs>
inline void AddScaled(float* y, float a, const float* x, int64_t vecs) {
  const int64_t n = kVecs ? kVecs : vecs;
  for (int64_t i = 0; i < n; ++i)
    Store(y + i * kLanes, Load(y + i * kLanes) + Splat(a) * Load(x + i * kLanes));
}

// scores[j] -> e^(scores[j] - max); returns their sum and the maximum. Padding up to a whole vector
// becomes 0.
struct Softmax {
  float max;
  float sum;
};
inline Softmax ExpInPlace(float* scores, int64_t n) {
  const int64_t padded = RoundUp(n);
  for (int64_t j = n; j < padded; ++j) scores[j] = -INFINITY;
  Vec max = Load(scores);
  for (int64_t j = kLanes; j < padded; j += kLanes) {
    Vec s = Load(scores + j);
    max = s > max ? s : max;
  }
  float m = max[0];
  for (int i = 1; i < kLanes; ++i) m = std::max(m, max[i]);
  Vec sum = Splat(0);
  for (int64_t j = 0; j < padded; j += kLanes) {
    Vec x = Load(scores + j);
    Vec e = Exp(x - Splat(m));
    e = x == Splat(-INFINITY) ? Splat(0) : e;
    Store(scores + j, e);
    sum += e;
  }
  return {m, Sum(sum)};
}

template <int kVecs>
void AttendRow(const HeadShape& shape, const QueryRow& row, std::vector<float>& scratch) {
  const int64_t dim = shape.head_dim, vecs = dim / kLanes;
  const int64_t group = shape.num_heads / shape.num_kv_heads;
  const int64_t row_stride = shape.num_kv_heads * dim, block_stride = kKvBlockRows * row_stride;
  const int64_t padded = RoundUp(row.context);
  scratch.resize(static_cast<size_t>(group * padded));
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));

  for (int64_t h = 0; h < shape.num_kv_heads; ++h) {
    const float* queries = row.query + h * group * dim;
    float* out = row.out + h * group * dim;
    for (int64_t j = 0; j < row.context; j += kKvBlockRows) {
      const float* keys =
          row.kv.keys + row.kv.block_table[j / kKvBlockRows] * block_stride + h * dim;
      const int64_t rows = std::min(kKvBlockRows, row.context - j);
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t g = 0; g < group; ++g) {
          scratch[g * padded + j + r] =
              Dot<kVecs>(queries + g * dim, keys + r * row_stride, vecs) * scale;
        }
      }
    }
    std::fill(out, out + group * dim, 0.0f);
    for (int64_t g = 0; g < group; ++g) {
      float* p = scratch.data() + g * padded;
      Softmax softmax = ExpInPlace(p, row.context);
      if (row.lse != nullptr) row.lse[h * group + g] = softmax.max + std::log(softmax.sum);
      const float inverse = 1.0f / softmax.sum;
      for (int64_t j = 0; j < row.context; ++j) p[j] *= inverse;
    }
    for (int64_t j = 0; j < row.context; j += kKvBlockRows) {
      const float* values =
          row.kv.values + row.kv.block_table[j / kKvBlockRows] * block_stride + h * dim;
      const int64_t rows = std::min(kKvBlockRows, row.context - j);
      for (int64_t g = 0; g < group; ++g) {
        const float* p = scratch.data() + g * padded + j;
        float* o = out + g * dim;
        for (int64_t r = 0; r < rows; ++r) AddScaled<kVecs>(o, p[r], values + r * row_stride, vecs);
      }
    }
  }
}

template <int kVecs>
void AttendRowsImpl(const HeadShape& shape, const std::vector<QueryRow>& rows) {
  const int64_t n = static_cast<int64_t>(rows.size());
#pragma omp parallel
  {
    std::vector<float> scratch;
#pragma omp for schedule(dynamic, 8)
    // Late rows of a sequence see the longest context, so they are dealt first.
    for (int64_t i = n - 1; i >= 0; --i)
      AttendRow<kVecs>(shape, rows[static_cast<size_t>(i)], scratch);
  }
}

template <int kVecs>
void AttendBackwardImpl(const HeadShape& shape, const std::vector<int64_t>& offsets,
                        const float* query, const float* keys, const float* values,
                        const float* out, const float* lse, const float* d_out, float* d_query,
                        float* d_keys, float* d_values) {
  const int64_t dim = shape.head_dim, vecs = dim / kLanes;
  const int64_t group = shape.num_heads / shape.num_kv_heads;
  const int64_t q_stride = shape.num_heads * dim, kv_stride = shape.num_kv_heads * dim;
  const int64_t sequences = static_cast<int64_t>(offsets.size()) - 1;
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));

#pragma omp parallel
  {
    std::vector<float> p, dp;
#pragma omp for schedule(dynamic, 1)
    for (int64_t task = 0; task < sequences * shape.num_kv_heads; ++task) {
      const int64_t begin = offsets[task / shape.num_kv_heads],
                    end = offsets[task / shape.num_kv_heads + 1];
      const int64_t h = task % shape.num_kv_heads;
      p.resize(static_cast<size_t>(RoundUp(end - begin)));
      dp.resize(p.size());
      for (int64_t j = begin; j < end; ++j) {
        std::fill_n(d_keys + j * kv_stride + h * dim, dim, 0.0f);
        std::fill_n(d_values + j * kv_stride + h * dim, dim, 0.0f);
      }
      for (int64_t i = begin; i < end; ++i) {
        const int64_t context = i - begin + 1, padded = RoundUp(context);
        for (int64_t head = h * group; head < (h + 1) * group; ++head) {
          const float* q = query + i * q_stride + head * dim;
          const float* d_o = d_out + i * q_stride + head * dim;
          float* d_q = d_query + i * q_stride + head * dim;
          std::fill_n(d_q, dim, 0.0f);
          const float delta = Dot<kVecs>(d_o, out + i * q_stride + head * dim, vecs);
          const float row_lse = lse[i * shape.num_heads + head];
          for (int64_t j = 0; j < context; ++j) {
            const int64_t at = (begin + j) * kv_stride + h * dim;
            p[j] = Dot<kVecs>(q, keys + at, vecs) * scale;
            dp[j] = Dot<kVecs>(d_o, values + at, vecs);
          }
          for (int64_t j = context; j < padded; ++j) p[j] = dp[j] = 0;
          for (int64_t j = 0; j < padded; j += kLanes) {
            Vec e = Exp(Load(&p[j]) - Splat(row_lse));
            Store(&p[j], e);
            Store(&dp[j], e * (Load(&dp[j]) - Splat(delta)) * Splat(scale));
          }
          for (int64_t j = 0; j < context; ++j) {
            const int64_t at = (begin + j) * kv_stride + h * dim;
            AddScaled<kVecs>(d_q, dp[j], keys + at, vecs);
            AddScaled<kVecs>(d_keys + at, dp[j], q, vecs);
            AddScaled<kVecs>(d_values + at, p[j], d_o, vecs);
          }
        }
      }
    }
  }
}

// Calls f<kVecs> with the constant for common head sizes.
#define E3_DISPATCH_HEAD_DIM(dim, call) \
  switch (dim) {                        \
    case 32:                            \
      return call(4);                   \
    case 64:                            \
      return call(8);                   \
    case 128:                           \
      return call(16);                  \
    default:                            \
      return call(0);                   \
  }

}  // namespace

void AttendRows(const HeadShape& shape, const std::vector<QueryRow>& rows) {
#define E3_CALL(n) AttendRowsImpl<n>(shape, rows)
  E3_DISPATCH_HEAD_DIM(shape.head_dim, E3_CALL)
#undef E3_CALL
}

void AttendBackward(const HeadShape& shape, const std::vector<int64_t>& offsets, const float* query,
                    const float* keys, const float* values, const float* out, const float* lse,
                    const float* d_out, float* d_query, float* d_keys, float* d_values) {
#define E3_CALL(n)                                                                             \
  AttendBackwardImpl<n>(shape, offsets, query, keys, values, out, lse, d_out, d_query, d_keys, \
                        d_values)
  E3_DISPATCH_HEAD_DIM(shape.head_dim, E3_CALL)
#undef E3_CALL
}

}  // namespace e3
