// The inner loops of attention, over one block of 16 keys or values, compiled once for each width
// of vectors (attention_blocks_*.cc); the bits are the same.
#ifndef E3_MODEL_ATTENTION_BLOCKS_H_
#define E3_MODEL_ATTENTION_BLOCKS_H_

#include <cstdint>

namespace e3 {

// A query head on its way through the blocks of its keys and values.
struct QueryHead {
  const float* query;
  int64_t context;
  float* scores;  // then the probabilities
  float* out;
  float* lse;
};

// A query row and head, and what it has of gradients.
struct GradientRow {
  const float* query;
  const float* d_out;
  float* d_query;  // added to
  float lse, delta;
  int64_t visible;  // keys of the block that the row attends to
};

// A block's keys [16][dim] and, transposed ([dim][16]), keys and values, with zeros where the
// sequence has none; and the sums of the gradients of both [16][dim].
struct GradientBlock {
  const float *keys, *keys_t, *values_t;
  float *d_keys, *d_values;
};

struct AttentionBlocks {
  // The scores [first, first + 16) of n heads: their queries times `keys` [dim][16], times `scale`.
  void (*score)(const QueryHead* heads, int64_t n, const float* keys, int64_t dim, float scale,
                int64_t first);
  // out += the rows of `values` [16][dim] by the probabilities [first, first + 16) within each
  // head's context.
  void (*add_values)(const QueryHead* heads, int64_t n, const float* values, int64_t dim,
                     int64_t first);
  // What n rows add to the gradients of a block, and the block to those of the rows.
  void (*add_gradients)(const GradientRow* rows, int64_t n, int64_t dim, float scale,
                        const GradientBlock& block);
};

extern const AttentionBlocks kAttentionBlocksAvx2, kAttentionBlocksAvx512;

}  // namespace e3

#endif  // E3_MODEL_ATTENTION_BLOCKS_H_
