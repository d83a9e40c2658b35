// Causal attention on the CPU. Training, prefill and decoding all run this code over the same
// blocks of keys in the same order: a row's bits do not depend on which of them asked, nor on what
// else is in the batch, nor on the number of threads. Knows nothing of LibTorch. Parallel with
// OpenMP; fp32.
//
// Keys and values lie in blocks of 16 rows, as in the paged cache: within a block, head after head,
// the keys of a head transposed ([head_dim][16]), so that 16 scores are computed at once without
// sums across a vector, and its values [16][head_dim].
//
// Reference: the online formulation is not used; a row's scores are kept whole (context x 4 bytes a
// head), and normalised by their log-sum-exp, which the backward pass needs anyway (Dao et al.
// 2022, FlashAttention, Algorithm 4 for the gradients).
#ifndef E3_MODEL_ATTENTION_KERNEL_H_
#define E3_MODEL_ATTENTION_KERNEL_H_

#include <cstdint>
#include <vector>

namespace e3 {

// Rows of keys (and values) in one block; the block size of the paged cache.
inline constexpr int64_t kKvBlockRows = 16;

struct HeadShape {
  int64_t num_heads;
  int64_t num_kv_heads;
  int64_t head_dim;  // a multiple of 8
};

// Floats of one block of keys (and of one of values).
inline int64_t BlockFloats(const HeadShape& shape) {
  return kKvBlockRows * shape.num_kv_heads * shape.head_dim;
}

// Keys and values of one sequence: row r lies in block block_table[r / 16] at row r % 16; block b
// starts at b * BlockFloats from `keys` (and `values`).
struct KeyValues {
  float* keys;
  float* values;
  const int32_t* block_table;
};

// One token: its own key and value are stored as row context - 1 of `kv`, then its query attends to
// the first `context` rows. The tokens of a sequence are neighbours in a batch, and share the
// reading of its keys.
struct QueryRow {
  const float* query;  // [num_heads, head_dim]
  const float* key;    // [num_kv_heads, head_dim]
  const float* value;  // [num_kv_heads, head_dim]
  KeyValues kv;
  int64_t context;
  float* out;  // [num_heads, head_dim]
  float* lse;  // [num_heads] log-sum-exp of the scaled scores, or null
};

void AttendRows(const HeadShape& shape, const std::vector<QueryRow>& rows);

// Gradients of causal attention for packed sequences: sequence s has rows offsets[s] … offsets[s +
// 1] - 1. All tensors are contiguous: query, out, d_out, d_query [N, num_heads, head_dim]; lse [N,
// num_heads]; the others [N, num_kv_heads, head_dim]. d_query, d_keys and d_values are overwritten.
void AttendBackward(const HeadShape& shape, const std::vector<int64_t>& offsets, const float* query,
                    const float* keys, const float* values, const float* out, const float* lse,
                    const float* d_out, float* d_query, float* d_keys, float* d_values);

}  // namespace e3

#endif  // E3_MODEL_ATTENTION_KERNEL_H_
