#include "tasks/countdown.h"

#include <catch2/catch.hpp>

#include "reward_service/countdown/countdown_verifier.h"

namespace e3 {
namespace {

v1::Countdown Spec(int numbers, int64_t count, uint64_t seed) {
  v1::Countdown spec;
  spec.set_numbers(numbers);
  spec.set_count(count);
  spec.set_seed(seed);
  return CountdownWithDefaults(spec);
}

TEST_CASE("puzzles are distinct, solvable, reproducible, and leave out what is excluded") {
  for (int numbers : {3, 4}) {
    auto puzzles = GenerateCountdown(Spec(numbers, 500, 5), {});
    REQUIRE(puzzles.ok());
    std::set<std::string> keys;
    for (const CountdownPuzzle& p : *puzzles) {
      CHECK(keys.insert(p.Key()).second);
      CHECK(static_cast<int>(p.numbers.size()) == numbers);
      CHECK((p.target >= 1 && p.target <= 100));
    }
    auto again = GenerateCountdown(Spec(numbers, 500, 5), {});
    CHECK((*again)[499].Key() == (*puzzles)[499].Key());
    auto others = GenerateCountdown(Spec(numbers, 500, 6), keys);
    REQUIRE(others.ok());
    for (const CountdownPuzzle& p : *others) CHECK(keys.count(p.Key()) == 0);
  }
}

TEST_CASE("more puzzles than there are is an error") {
  v1::Countdown spec = Spec(2, 100000, 1);
  CHECK(absl::IsInvalidArgument(GenerateCountdown(spec, {}).status()));
}

TEST_CASE("the verifier agrees with the traces") {
  PhiloxStream random(9);
  int right = 0;
  auto puzzles = GenerateCountdown(Spec(3, 300, 7), {});
  REQUIRE(puzzles.ok());
  for (const CountdownPuzzle& p : *puzzles) {
    std::string trace = SearchTrace(Spec(3, 1, 0), p, {}, random);
    Verdict verdict = *Verify(CountdownVerifier({p.numbers, p.target}), trace);
    INFO(p.Key() << ": " << trace << ": " << verdict.reason);
    // A trace that says yes at the end has a right answer, and no other has.
    CHECK((verdict.score == 1) == (trace.find("yes") != std::string::npos));
    CHECK((verdict.rule == "exact" || verdict.rule == "wrong-value"));
    right += verdict.score == 1;
  }
  CHECK(right > 50);
  CHECK(right < 250);
}

}  // namespace
}  // namespace e3
