#include "services/runtime/philox.h"

#include <catch2/catch.hpp>

namespace e3 {
namespace {

TEST_CASE("Philox4x32-10 gives the published vectors") {
  // Known-answer tests of the reference implementation (Random123, kat_vectors).
  CHECK(Philox(0, 0, 0) == std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(Philox(~0ull, ~0ull, ~0ull) ==
        std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(Philox(0x299f31d0a4093822ull, 0x85a308d3243f6a88ull, 0x0370734413198a2eull) ==
        std::array<uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("uniform draws have the right mean and range") {
  PhiloxStream random(1);
  double sum = 0;
  for (int i = 0; i < 100000; ++i) {
    double u = random.Uniform();
    REQUIRE((u >= 0 && u < 1));
    sum += u;
  }
  CHECK(sum / 100000 == Approx(0.5).margin(0.005));
}

}  // namespace
}  // namespace e3
