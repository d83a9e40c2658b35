#include "model/attention_kernel.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "model/attention_blocks.h"
#include "model/vector_math.h"

namespace e3 {
namespace {

// Rows that share a pass over their keys at most; runs that keep all threads busy.
constexpr int64_t kRunRows = 8, kRunsForThreads = 64;
// Multiply-adds below which waking threads costs more than the work.
constexpr int64_t kWorthThreads = 1 << 16;

inline int64_t RoundUp(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

const AttentionBlocks& Blocks() {
  static const AttentionBlocks& blocks =
      __builtin_cpu_supports("avx512f") ? kAttentionBlocksAvx512 : kAttentionBlocksAvx2;
  return blocks;
}

inline float Dot(const float* a, const float* b, int64_t dim) {
  Vec sum = Splat(0);
  for (int64_t i = 0; i < dim; i += kLanes) sum += Load(a + i) * Load(b + i);
  return Sum(sum);
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

// Rows [begin, end), which have the same keys and values, for key/value heads [first_head,
// last_head).
struct Run {
  int64_t begin, end;
  int64_t first_head, last_head;
  bool alone;  // the batch has no other rows of the sequence
};

bool SameSequence(const QueryRow& a, const QueryRow& b) {
  return a.kv.block_table == b.kv.block_table && a.kv.keys == b.kv.keys;
}

// Puts a token's key and value where they belong, for key/value heads [first, last).
void StoreKeyValue(const HeadShape& shape, const QueryRow& row, int64_t first, int64_t last) {
  const int64_t dim = shape.head_dim, at = row.context - 1, r = at % kKvBlockRows;
  const int64_t block = row.kv.block_table[at / kKvBlockRows] * BlockFloats(shape);
  for (int64_t h = first; h < last; ++h) {
    float* keys = row.kv.keys + block + h * kKvBlockRows * dim;
    for (int64_t d = 0; d < dim; ++d) keys[d * kKvBlockRows + r] = row.key[h * dim + d];
    std::copy_n(row.value + h * dim, dim, row.kv.values + block + (h * kKvBlockRows + r) * dim);
  }
}

// What a thread uses again from run to run.
struct RunScratch {
  std::vector<QueryHead> heads;
  std::vector<float> scores;
};

void AttendRun(const HeadShape& shape, const std::vector<QueryRow>& rows, const Run& run,
               RunScratch& scratch) {
  const int64_t dim = shape.head_dim, group = shape.num_heads / shape.num_kv_heads;
  const int64_t block_floats = BlockFloats(shape), head_floats = kKvBlockRows * dim;
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  const KeyValues& kv = rows[static_cast<size_t>(run.begin)].kv;
  int64_t longest = 0;
  for (int64_t i = run.begin; i < run.end; ++i)
    longest = std::max(longest, rows[static_cast<size_t>(i)].context);
  const int64_t blocks = (longest + kKvBlockRows - 1) / kKvBlockRows;
  const AttentionBlocks& kernels = Blocks();

  // The query heads of each key/value head, one after the other.
  const int64_t per_head = (run.end - run.begin) * group;
  const int64_t all = per_head * (run.last_head - run.first_head);
  scratch.heads.resize(static_cast<size_t>(all));
  scratch.scores.resize(static_cast<size_t>(all * blocks * kKvBlockRows));
  QueryHead* heads = scratch.heads.data();
  int64_t n = 0;
  for (int64_t h = run.first_head; h < run.last_head; ++h) {
    for (int64_t i = run.begin; i < run.end; ++i) {
      const QueryRow& row = rows[static_cast<size_t>(i)];
      for (int64_t q = h * group; q < (h + 1) * group; ++q, ++n) {
        heads[n] = {row.query + q * dim, row.context,
                    scratch.scores.data() + n * blocks * kKvBlockRows, row.out + q * dim,
                    row.lse == nullptr ? nullptr : row.lse + q};
      }
    }
  }
  // Blocks lie anywhere in memory: while a head is worked on, its place in the next block is
  // fetched.
  auto head_of = [&](const float* base, int64_t block, int64_t h) {
    return base + kv.block_table[block] * block_floats + h * head_floats;
  };
  auto fetch = [&](const float* base, int64_t block, int64_t h) {
    if (block >= blocks) return;
    const float* next = head_of(base, block, h);
    for (int64_t i = 0; i < head_floats; i += 16) __builtin_prefetch(next + i);
  };
  for (int64_t b = 0; b < blocks; ++b) {
    for (int64_t h = run.first_head; h < run.last_head; ++h) {
      if (b + 1 < blocks) {
        fetch(kv.keys, b + 1, h);
      } else {
        fetch(kv.values, 0, h);
      }
      const float* keys = head_of(kv.keys, b, h);
      const QueryHead* mine = heads + (h - run.first_head) * per_head;
      kernels.score(mine, per_head, keys, dim, scale, b * kKvBlockRows);
    }
  }
  for (int64_t q = 0; q < all; ++q) {
    const QueryHead& head = heads[q];
    const Softmax softmax = ExpInPlace(head.scores, head.context);
    if (head.lse != nullptr) *head.lse = softmax.max + std::log(softmax.sum);
    const Vec inverse = Splat(1.0f / softmax.sum);
    for (int64_t j = 0; j < head.context; j += kLanes)
      Store(head.scores + j, Load(head.scores + j) * inverse);
    std::fill(head.out, head.out + dim, 0.0f);
  }
  for (int64_t b = 0; b < blocks; ++b) {
    for (int64_t h = run.first_head; h < run.last_head; ++h) {
      fetch(kv.values, b + 1, h);
      const float* values = head_of(kv.values, b, h);
      const QueryHead* mine = heads + (h - run.first_head) * per_head;
      kernels.add_values(mine, per_head, values, dim, b * kKvBlockRows);
    }
  }
}

}  // namespace

void AttendRows(const HeadShape& shape, const std::vector<QueryRow>& rows) {
  // Runs of neighbours over the same keys.
  std::vector<Run> runs;
  const int64_t n = static_cast<int64_t>(rows.size());
  int64_t work = 0;
  for (int64_t i = 0; i < n; ++i) {
    const QueryRow& row = rows[static_cast<size_t>(i)];
    work += row.context * shape.num_heads * shape.head_dim;
    const bool follows = i > 0 && SameSequence(rows[static_cast<size_t>(i - 1)], row);
    const bool followed = i + 1 < n && SameSequence(row, rows[static_cast<size_t>(i + 1)]);
    if (follows && i - runs.back().begin < kRunRows) {
      runs.back().end = i + 1;
    } else {
      runs.push_back({i, i + 1, 0, shape.num_kv_heads, !follows && !followed});
    }
  }
  if (static_cast<int64_t>(runs.size()) < kRunsForThreads) {
    // Too few for the threads: every head is a run of its own.
    std::vector<Run> by_head;
    for (const Run& run : runs) {
      for (int64_t h = 0; h < shape.num_kv_heads; ++h)
        by_head.push_back({run.begin, run.end, h, h + 1, run.alone});
    }
    runs = std::move(by_head);
  }
#pragma omp parallel if (work >= kWorthThreads && runs.size() > 1)
  {
    const int64_t num_runs = static_cast<int64_t>(runs.size());
    // The tokens of a sequence see each other: all are stored before any attends. One that is alone
    // is stored by who is about to read what lies around it.
#pragma omp for schedule(static)
    for (int64_t r = 0; r < num_runs; ++r) {
      const Run& run = runs[static_cast<size_t>(r)];
      if (run.alone) continue;
      for (int64_t i = run.begin; i < run.end; ++i)
        StoreKeyValue(shape, rows[static_cast<size_t>(i)], run.first_head, run.last_head);
    }
    RunScratch scratch;
#pragma omp for schedule(dynamic, 2)
    // Late rows of a sequence see the longest context, so they are dealt first.
    for (int64_t r = num_runs - 1; r >= 0; --r) {
      const Run& run = runs[static_cast<size_t>(r)];
      if (run.alone) {
        StoreKeyValue(shape, rows[static_cast<size_t>(run.begin)], run.first_head, run.last_head);
      }
      AttendRun(shape, rows, run, scratch);
    }
  }
}

void AttendBackward(const HeadShape& shape, const std::vector<int64_t>& offsets, const float* query,
                    const float* keys, const float* values, const float* out, const float* lse,
                    const float* d_out, float* d_query, float* d_keys, float* d_values) {
  const int64_t dim = shape.head_dim, group = shape.num_heads / shape.num_kv_heads;
  const int64_t q_stride = shape.num_heads * dim, kv_stride = shape.num_kv_heads * dim;
  const int64_t sequences = static_cast<int64_t>(offsets.size()) - 1;
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));

#pragma omp parallel
  {
    const size_t block_floats = static_cast<size_t>(kKvBlockRows * dim);
    std::vector<float> block_keys(block_floats), block_keys_t(block_floats),
        block_values_t(block_floats), block_d_keys(block_floats), block_d_values(block_floats);
    const GradientBlock block{block_keys.data(), block_keys_t.data(), block_values_t.data(),
                              block_d_keys.data(), block_d_values.data()};
    std::vector<GradientRow> rows;
#pragma omp for schedule(dynamic, 1)
    for (int64_t task = 0; task < sequences * shape.num_kv_heads; ++task) {
      const int64_t begin = offsets[static_cast<size_t>(task / shape.num_kv_heads)];
      const int64_t n = offsets[static_cast<size_t>(task / shape.num_kv_heads + 1)] - begin;
      const int64_t h = task % shape.num_kv_heads;
      // All query heads of the key/value head, row after row.
      rows.clear();
      for (int64_t i = 0; i < n; ++i) {
        for (int64_t head = h * group; head < (h + 1) * group; ++head) {
          const int64_t at = (begin + i) * q_stride + head * dim;
          std::fill_n(d_query + at, dim, 0.0f);
          rows.push_back({query + at, d_out + at, d_query + at,
                          lse[(begin + i) * shape.num_heads + head], Dot(d_out + at, out + at, dim),
                          0});
        }
      }
      for (int64_t first = 0; first < n; first += kKvBlockRows) {
        const int64_t held = std::min(kKvBlockRows, n - first);
        for (int64_t k = 0; k < kKvBlockRows; ++k) {
          const int64_t at = (begin + first + k) * kv_stride + h * dim;
          for (int64_t d = 0; d < dim; ++d) {
            const size_t row = static_cast<size_t>(k * dim + d);
            const size_t column = static_cast<size_t>(d * kKvBlockRows + k);
            block_keys[row] = block_keys_t[column] = k < held ? keys[at + d] : 0.0f;
            block_values_t[column] = k < held ? values[at + d] : 0.0f;
          }
        }
        block_d_keys.assign(block_floats, 0.0f);
        block_d_values.assign(block_floats, 0.0f);
        const int64_t from = first * group, last = static_cast<int64_t>(rows.size());
        for (int64_t r = from; r < last; ++r)
          rows[static_cast<size_t>(r)].visible = std::min(kKvBlockRows, r / group - first + 1);
        Blocks().add_gradients(rows.data() + from, last - from, dim, scale, block);
        for (int64_t k = 0; k < held; ++k) {
          const int64_t at = (begin + first + k) * kv_stride + h * dim;
          std::copy_n(block.d_keys + k * dim, dim, d_keys + at);
          std::copy_n(block.d_values + k * dim, dim, d_values + at);
        }
      }
    }
  }
}

}  // namespace e3
