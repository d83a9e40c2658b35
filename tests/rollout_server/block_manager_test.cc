#include "rollout_server/block_manager.h"

#include <catch2/catch.hpp>
#include <map>

#include "services/runtime/philox.h"

namespace e3 {
namespace {

TEST_CASE("100,000 random operations agree with a map of counts") {
  BlockManager blocks(37);
  std::map<int32_t, int> model;
  PhiloxStream random(4);
  for (int i = 0; i < 100000; ++i) {
    auto held = [&] {
      return std::next(model.begin(), random.Below(static_cast<int64_t>(model.size())))->first;
    };
    switch (random.Below(4)) {
      case 0: {
        std::optional<int32_t> block = blocks.Allocate();
        REQUIRE(block.has_value() == (model.size() < 37));
        if (block) REQUIRE(model.emplace(*block, 1).second);
        break;
      }
      case 1:
        if (!model.empty()) {
          int32_t block = held();
          blocks.AddReference(block);
          ++model[block];
        }
        break;
      default:
        if (!model.empty()) {
          int32_t block = held();
          blocks.Release(block);
          if (--model[block] == 0) model.erase(block);
        }
    }
    REQUIRE(blocks.num_free() == 37 - static_cast<int>(model.size()));
    for (const auto& [block, count] : model) REQUIRE(blocks.IsShared(block) == (count > 1));
  }
}

}  // namespace
}  // namespace e3
