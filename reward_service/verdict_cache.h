// Verdicts that were given before, bounded.
#ifndef E3_REWARD_SERVICE_VERDICT_CACHE_H_
#define E3_REWARD_SERVICE_VERDICT_CACHE_H_

#include <array>
#include <atomic>
#include <list>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "reward_service/verdict.h"

namespace e3 {

// The least recently used entry goes first. Keys are compared whole, so that a hash that collides
// gives no wrong verdict. Thread-safe, in shards.
class VerdictCache {
 public:
  struct Counts {
    uint64_t hits = 0, misses = 0;
  };

  // Keys over 4 KiB are not kept: with 65,536 entries the cache has at most 512 MiB, and 30 in
  // practice.
  explicit VerdictCache(size_t entries) : entries_per_shard_((entries + kShards - 1) / kShards) {}

  std::optional<Verdict> Find(const std::string& key);
  void Put(const std::string& key, const Verdict& verdict);
  Counts counts() const { return {hits_.load(), misses_.load()}; }
  bool enabled() const { return entries_per_shard_ > 0; }

 private:
  static constexpr size_t kShards = 16;
  static constexpr size_t kMaxKey = 4096;
  struct Shard {
    std::mutex mutex;
    std::list<std::pair<std::string, Verdict>> entries;  // most recent first
    // Keys point into `entries`.
    absl::flat_hash_map<absl::string_view, std::list<std::pair<std::string, Verdict>>::iterator>
        index;
  };
  Shard& ShardOf(const std::string& key) {
    return shards_[std::hash<std::string>()(key) % kShards];
  }

  const size_t entries_per_shard_;
  std::array<Shard, kShards> shards_;
  std::atomic<uint64_t> hits_{0}, misses_{0};
};

}  // namespace e3

#endif  // E3_REWARD_SERVICE_VERDICT_CACHE_H_
