#include "learner/ranks/deal.h"

#include <algorithm>
#include <catch2/catch.hpp>

#include "services/runtime/philox.h"

namespace e3 {
namespace {

TEST_CASE("every sequence goes to one rank, and no rank has much more than the others") {
  for (uint64_t seed = 0; seed < 300; ++seed) {
    PhiloxStream random(seed, 1);
    const int ranks = 1 + static_cast<int>(random.Uniform() * 8);
    std::vector<int64_t> lengths(static_cast<size_t>(random.Uniform() * 100));
    for (int64_t& n : lengths)
      n = 1 + static_cast<int64_t>(2000 * random.Uniform() * random.Uniform());
    const double quadratic = 500;
    const auto dealt = DealSequences(lengths, ranks, quadratic);
    REQUIRE(dealt.size() == static_cast<size_t>(ranks));

    std::vector<int> times(lengths.size(), 0);
    double total = 0, most = 0, largest = 0;
    for (const std::vector<size_t>& part : dealt) {
      REQUIRE(std::is_sorted(part.begin(), part.end()));
      double load = 0;
      for (size_t i : part) {
        ++times[i];
        const double n = static_cast<double>(lengths[i]), work = n + n * n / quadratic;
        load += work;
        largest = std::max(largest, work);
      }
      total += load;
      most = std::max(most, load);
    }
    REQUIRE(std::all_of(times.begin(), times.end(), [](int n) { return n == 1; }));
    // At most what is left to the rank that was least loaded when its last sequence came.
    REQUIRE(most <= total / ranks + largest + 1e-6);
    // With many sequences the difference is small.
    if (lengths.size() >= 20 * static_cast<size_t>(ranks)) REQUIRE(most <= 1.1 * total / ranks);
  }
}

}  // namespace
}  // namespace e3
