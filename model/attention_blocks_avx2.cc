#include "model/attention_blocks.h"
#include "model/vector_math.h"

namespace e3 {
namespace {
#include "model/attention_blocks.inc"
}  // namespace

const AttentionBlocks kAttentionBlocksAvx2 = {Score, AddValues, AddGradients};

}  // namespace e3
