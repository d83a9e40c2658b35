#include "rollout_server/block_manager.h"

#include <algorithm>
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

size_t BlockManager::ContentHash::operator()(const Content& content) const {
  uint64_t hash = content.parent * 0x9E3779B97F4A7C15u;
  for (uint32_t token : content.tokens) {
    hash = (hash ^ token) * 0xFF51AFD7ED558CCDu;
    hash ^= hash >> 32;
  }
  return hash;
}

BlockManager::BlockManager(int32_t num_blocks) : blocks_(static_cast<size_t>(num_blocks)) {
  for (int32_t b = num_blocks - 1; b >= 0; --b) free_.push_back(b);
}

std::optional<int32_t> BlockManager::Allocate() {
  int32_t block;
  if (!free_.empty()) {
    block = free_.back();
    free_.pop_back();
  } else if (!kept_.empty()) {
    block = kept_.front();
    kept_.pop_front();
    contents_.erase(*At(block).content);
    At(block).content.reset();
  } else {
    return std::nullopt;
  }
  At(block).references = 1;
  return block;
}

void BlockManager::AddReference(int32_t block) {
  Block& b = At(block);
  if (b.references == 0) {
    Require(b.content.has_value(), "reference to a free block");
    kept_.erase(b.kept);
  }
  ++b.references;
}

void BlockManager::Release(int32_t block) {
  Block& b = At(block);
  Require(b.references > 0, "double free");
  if (--b.references > 0) return;
  if (b.content) {
    b.kept = kept_.insert(kept_.end(), block);
  } else {
    free_.push_back(block);
  }
}

std::optional<BlockManager::CachedBlock> BlockManager::FindPrefix(PrefixId parent,
                                                                  const uint32_t* tokens) const {
  Content content{parent, {}};
  std::copy_n(tokens, kKvBlockRows, content.tokens.begin());
  auto it = contents_.find(content);
  if (it == contents_.end()) return std::nullopt;
  return it->second;
}

PrefixId BlockManager::Publish(int32_t block, PrefixId parent, const uint32_t* tokens) {
  Content content{parent, {}};
  std::copy_n(tokens, kKvBlockRows, content.tokens.begin());
  auto [it, inserted] = contents_.emplace(content, CachedBlock{block, next_prefix_});
  if (inserted) {
    Require(!At(block).content.has_value(), "a block with two contents");
    At(block).content = it;
    ++next_prefix_;
  }
  // Else another block has the same content already: it stays the one that is found.
  return it->second.prefix;
}

void BlockManager::ForgetContents() {
  for (int32_t block : kept_) free_.push_back(block);
  kept_.clear();
  for (Block& block : blocks_) block.content.reset();
  contents_.clear();
}

}  // namespace e3
