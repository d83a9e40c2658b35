// The blocks of the paged KV cache: who holds which, by reference counts.
//
// Invariant: a block is free exactly when its count is 0; every entry of every block table holds
// one reference.
#ifndef E3_ROLLOUT_SERVER_BLOCK_MANAGER_H_
#define E3_ROLLOUT_SERVER_BLOCK_MANAGER_H_

#include <cstdint>
#include <optional>
#include <vector>

namespace e3 {

class BlockManager {
 public:
  explicit BlockManager(int32_t num_blocks);

  // A block with one reference; nullopt when none is free.
  std::optional<int32_t> Allocate();
  void AddReference(int32_t block);
  // The block is free again when this was the last reference.
  void Release(int32_t block);
  // Whether more than one table holds the block, so that it must be copied before it is written.
  bool IsShared(int32_t block) const { return references_[static_cast<size_t>(block)] > 1; }

  int32_t num_blocks() const { return static_cast<int32_t>(references_.size()); }
  int32_t num_free() const { return static_cast<int32_t>(free_.size()); }

 private:
  std::vector<int32_t> references_;
  std::vector<int32_t> free_;  // a stack: the block freed last is used first, while it is warm
};

}  // namespace e3

#endif  // E3_ROLLOUT_SERVER_BLOCK_MANAGER_H_
