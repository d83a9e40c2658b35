#include "reward_service/verdict_cache.h"

namespace e3 {

std::optional<Verdict> VerdictCache::Find(const std::string& key) {
  if (!enabled() || key.size() > kMaxKey) return std::nullopt;
  Shard& shard = ShardOf(key);
  std::lock_guard<std::mutex> lock(shard.mutex);
  auto it = shard.index.find(key);
  if (it == shard.index.end()) {
    ++misses_;
    return std::nullopt;
  }
  ++hits_;
  shard.entries.splice(shard.entries.begin(), shard.entries, it->second);
  return it->second->second;
}

void VerdictCache::Put(const std::string& key, const Verdict& verdict) {
  if (!enabled() || key.size() > kMaxKey) return;
  Shard& shard = ShardOf(key);
  std::lock_guard<std::mutex> lock(shard.mutex);
  if (shard.index.contains(key)) return;
  shard.entries.emplace_front(key, verdict);
  shard.index.emplace(shard.entries.front().first, shard.entries.begin());
  if (shard.entries.size() > entries_per_shard_) {
    shard.index.erase(shard.entries.back().first);
    shard.entries.pop_back();
  }
}

}  // namespace e3
