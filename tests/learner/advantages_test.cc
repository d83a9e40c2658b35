#include "learner/advantages.h"

#include <catch2/catch.hpp>

namespace e3 {
namespace {

TEST_CASE("golden values of group-normalised advantages") {
  auto one_of = [](size_t n) {
    std::vector<double> rewards(n, 0.0);
    rewards[0] = 1;
    return GroupAdvantages(rewards, true);
  };
  CHECK(one_of(4)[0] == Approx(1.499997).margin(1e-6));
  CHECK(one_of(4)[1] == Approx(-0.499999).margin(1e-6));
  CHECK(one_of(8)[0] == Approx(2.474867).margin(1e-6));
  CHECK(one_of(8)[1] == Approx(-0.353552).margin(1e-6));
  CHECK(one_of(32)[0] == Approx(5.480047).margin(1e-6));
  CHECK(one_of(32)[1] == Approx(-0.176776).margin(1e-6));
  CHECK(GroupAdvantages({1, 0}, false) == std::vector<double>{0.5, -0.5});
  CHECK(GroupAdvantages({1, 1, 1}, true) == std::vector<double>{0, 0, 0});
  CHECK(GroupAdvantages({1}, true) == std::vector<double>{0});
}

TEST_CASE("equal rewards have no advantage at all, whatever their rounding") {
  for (size_t n = 2; n < 40; ++n) {
    for (double reward : {0.1, 0.3, 1.0 / 3, 0.7}) {
      for (bool normalize : {false, true}) {
        for (double a : GroupAdvantages(std::vector<double>(n, reward), normalize)) CHECK(a == 0);
      }
    }
  }
}

}  // namespace
}  // namespace e3
