#include "rollout_server/block_manager.h"

#include <cstdlib>
#include <iostream>

namespace e3 {
namespace {
// Broken reference counts would corrupt rollouts silently; better to stop.
void Require(bool condition, const char* what) {
  if (condition) return;
  std::cerr << "block manager: " << what << "\n";
  abort();
}
}  // namespace

BlockManager::BlockManager(int32_t num_blocks) : references_(static_cast<size_t>(num_blocks), 0) {
  for (int32_t b = num_blocks - 1; b >= 0; --b) free_.push_back(b);
}

std::optional<int32_t> BlockManager::Allocate() {
  if (free_.empty()) return std::nullopt;
  int32_t block = free_.back();
  free_.pop_back();
  references_[static_cast<size_t>(block)] = 1;
  return block;
}

void BlockManager::AddReference(int32_t block) {
  Require(references_[static_cast<size_t>(block)] > 0, "reference to a free block");
  ++references_[static_cast<size_t>(block)];
}

void BlockManager::Release(int32_t block) {
  Require(references_[static_cast<size_t>(block)] > 0, "double free");
  if (--references_[static_cast<size_t>(block)] == 0) free_.push_back(block);
}

}  // namespace e3
