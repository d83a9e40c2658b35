// The blocks of the paged KV cache: who holds which, by reference counts, and what full blocks
// contain, so that a later sequence with the same tokens in front can take them over.
//
// Invariants: every entry of every block table holds one reference. A block without references is
// free, or kept: its content is known and may be asked for again; kept blocks are given away, least
// recently used first, when no free one is left.
#ifndef E3_ROLLOUT_SERVER_BLOCK_MANAGER_H_
#define E3_ROLLOUT_SERVER_BLOCK_MANAGER_H_

#include <array>
#include <cstdint>
#include <list>
#include <optional>
#include <unordered_map>
#include <vector>

#include "model/attention_kernel.h"

namespace e3 {

// A run of tokens from the start of a sequence that ends with a full block; 0: no tokens. Two
// prefixes have the same id exactly when all their tokens are the same.
using PrefixId = uint64_t;

// Not thread-safe.
class BlockManager {
 public:
  explicit BlockManager(int32_t num_blocks);

  // A block with one reference and no known content; nullopt when none is free or kept.
  std::optional<int32_t> Allocate();
  // For a block that has references, or one that FindPrefix gave.
  void AddReference(int32_t block);
  // Without its last reference a block is kept when its content is known, else free.
  void Release(int32_t block);
  // Whether more than one table holds the block, so that it must be copied before it is written.
  bool IsShared(int32_t block) const { return blocks_[static_cast<size_t>(block)].references > 1; }
  int32_t references(int32_t block) const { return blocks_[static_cast<size_t>(block)].references; }

  struct CachedBlock {
    int32_t block;
    PrefixId prefix;  // up to and with the block
  };
  // The block that holds keys and values of `tokens` [16] after `parent`, if there is one.
  std::optional<CachedBlock> FindPrefix(PrefixId parent, const uint32_t* tokens) const;
  // Says what a block that is computed and full contains. Returns the prefix up to and with it.
  PrefixId Publish(int32_t block, PrefixId parent, const uint32_t* tokens);
  // Forgets all contents: the weights that they were computed with are gone.
  void ForgetContents();

  int32_t num_blocks() const { return static_cast<int32_t>(blocks_.size()); }
  // Blocks without references: free or kept.
  int32_t num_free() const { return static_cast<int32_t>(free_.size() + kept_.size()); }
  int32_t num_kept() const { return static_cast<int32_t>(kept_.size()); }

 private:
  struct Content {
    PrefixId parent;
    std::array<uint32_t, kKvBlockRows> tokens;
    bool operator==(const Content&) const = default;
  };
  struct ContentHash {
    size_t operator()(const Content& content) const;
  };
  using Contents = std::unordered_map<Content, CachedBlock, ContentHash>;
  struct Block {
    int32_t references = 0;
    std::optional<Contents::iterator> content;
    std::list<int32_t>::iterator kept;  // valid while kept
  };

  Block& At(int32_t block) { return blocks_[static_cast<size_t>(block)]; }

  std::vector<Block> blocks_;
  std::vector<int32_t> free_;  // a stack: the block freed last is used first, while it is warm
  std::list<int32_t> kept_;    // least recently used first
  Contents contents_;
  PrefixId next_prefix_ = 1;
};

}  // namespace e3

#endif  // E3_ROLLOUT_SERVER_BLOCK_MANAGER_H_
