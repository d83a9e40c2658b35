#include "rollout_server/block_manager.h"

#include <catch2/catch.hpp>
#include <map>

#include "services/runtime/philox.h"

namespace e3 {
namespace {

TEST_CASE("100,000 random operations agree with a model") {
  constexpr int32_t kBlocks = 37;
  BlockManager blocks(kBlocks);
  std::map<int32_t, int> references;                                       // held blocks
  std::map<int32_t, std::pair<PrefixId, std::vector<uint32_t>>> contents;  // known, by block
  std::map<std::pair<PrefixId, std::vector<uint32_t>>, PrefixId> names;
  std::vector<PrefixId> parents = {0};
  PhiloxStream random(4);
  auto tokens = [&] {
    return std::vector<uint32_t>(kKvBlockRows, static_cast<uint32_t>(random.Below(6)));
  };
  auto held = [&] {
    return std::next(references.begin(), random.Below(static_cast<int64_t>(references.size())))
        ->first;
  };
  for (int i = 0; i < 100000; ++i) {
    switch (random.Below(7)) {
      case 0: {
        std::optional<int32_t> block = blocks.Allocate();
        REQUIRE(block.has_value() == (references.size() < kBlocks));
        if (!block) break;
        REQUIRE(references.emplace(*block, 1).second);
        contents.erase(*block);
        break;
      }
      case 1:
        if (!references.empty()) {
          int32_t block = held();
          blocks.AddReference(block);
          ++references[block];
        }
        break;
      case 2: {
        if (references.empty()) break;
        int32_t block = held();
        if (contents.count(block) > 0) break;
        std::pair content(
            parents[static_cast<size_t>(random.Below(static_cast<int64_t>(parents.size())))],
            tokens());
        PrefixId prefix = blocks.Publish(block, content.first, content.second.data());
        bool known = false;
        for (const auto& [other, c] : contents) known = known || c == content;
        if (known) {
          REQUIRE(prefix == names[content]);
        } else {
          contents[block] = content;
          names[content] = prefix;
        }
        if (parents.size() < 10) parents.push_back(prefix);
        break;
      }
      case 3: {
        std::pair content(
            parents[static_cast<size_t>(random.Below(static_cast<int64_t>(parents.size())))],
            tokens());
        auto found = blocks.FindPrefix(content.first, content.second.data());
        int32_t expected = -1;
        for (const auto& [block, c] : contents) {
          if (c == content) expected = block;
        }
        REQUIRE((found ? found->block : -1) == expected);
        if (found) {
          REQUIRE(found->prefix == names[content]);
          blocks.AddReference(found->block);
          ++references[found->block];
        }
        break;
      }
      default:
        if (random.Below(3000) == 0) {
          blocks.ForgetContents();
          contents.clear();
          parents = {0};
        } else if (!references.empty()) {
          int32_t block = held();
          blocks.Release(block);
          if (--references[block] == 0) references.erase(block);
        }
    }
    REQUIRE(blocks.num_free() == kBlocks - static_cast<int>(references.size()));
    for (const auto& [block, count] : references) {
      REQUIRE(blocks.IsShared(block) == (count > 1));
      REQUIRE(blocks.references(block) == count);
    }
  }
}

TEST_CASE("kept blocks are given away least recently used first, free ones before") {
  BlockManager blocks(3);
  const std::vector<uint32_t> a(kKvBlockRows, 1), b(kKvBlockRows, 2);
  const int32_t first = *blocks.Allocate(), second = *blocks.Allocate();
  blocks.Publish(first, 0, a.data());
  blocks.Publish(second, 0, b.data());
  blocks.Release(first);
  blocks.Release(second);
  CHECK(blocks.num_kept() == 2);
  const int32_t third = *blocks.Allocate();
  CHECK(blocks.num_kept() == 2);
  CHECK(*blocks.Allocate() == first);
  CHECK(!blocks.FindPrefix(0, a.data()));
  CHECK(blocks.FindPrefix(0, b.data())->block == second);
  blocks.Release(third);
}

}  // namespace
}  // namespace e3
