#include <catch2/catch.hpp>

#include "reward_service/countdown/countdown_verifier.h"

namespace e3 {
namespace {

struct Case {
  const char* response;
  std::vector<int64_t> numbers;
  int64_t target;
  double score;
  const char* rule;
};

Verdict VerifyCountdown(const std::string& response, const std::vector<int64_t>& numbers,
                        int64_t target, double format_score = 0,
                        CountdownRule rule = CountdownRule::kStrict) {
  return *Verify(CountdownVerifier({numbers, target, rule, format_score}), response);
}

TEST_CASE("Countdown answers are judged exactly") {
  const std::vector<int64_t> n = {3, 7, 12};
  const std::vector<Case> cases = {
      {"<answer> ( 3 * 7 ) + 12 </answer>", n, 33, 1, "exact"},
      {"<answer>3*7+12</answer>", n, 33, 1, "exact"},
      {"<answer>3 * 7 + 12 = 33</answer>", n, 33, 1, "exact"},
      {"<answer>3 * 7 + 12 = 34</answer>", n, 33, 0, "wrong-equation"},
      {"<answer>12 + 7 \xC3\x97 3</answer>", n, 33, 1, "exact"},
      {"<answer>12 \xE2\x88\x92 7 + 3</answer>", n, 8, 1, "exact"},
      {"<answer>7 \xC3\xB7 (3 - 12)</answer>", n, 0, 0, "wrong-value"},
      {"<answer>3 + 7 + 12</answer>", n, 33, 0, "wrong-value"},
      {"<answer>3 * 7</answer>", n, 21, 0, "wrong-numbers"},
      {"<answer>3 * 7 + 12 + 12 - 12</answer>", n, 33, 0, "wrong-numbers"},
      {"<answer>33</answer>", n, 33, 0, "wrong-numbers"},
      {"<answer>37 + 12</answer>", n, 49, 0, "wrong-numbers"},
      {"3 * 7 + 12 = 33", n, 33, 0, "no-answer"},
      {"<answer>3 * 7 + 12", n, 33, 0, "no-answer"},
      {"</answer><answer>", n, 33, 0, "no-answer"},
      {"<answer>1</answer> no: <answer>3*7+12</answer>", n, 33, 1, "exact"},
      {"<answer>3*7+12</answer> or <answer>3+7+12</answer>", n, 33, 0, "wrong-value"},
      {"<answer>3 * 7 + 12)</answer>", n, 33, 0, "malformed"},
      {"<answer>((3 * 7) + 12</answer>", n, 33, 0, "malformed"},
      {"<answer></answer>", n, 33, 0, "malformed"},
      {"<answer>12 / (3 - 3) + 7</answer>", {3, 3, 7, 12}, 33, 0, "malformed"},
      {"<answer>3 ** 7 + 12</answer>", n, 33, 0, "malformed"},
      {"<answer>three * 7 + 12</answer>", n, 33, 0, "malformed"},
      // Exact fractions on the way: 8 / (3 - 8/3) = 24.
      {"<answer>8 / (3 - 8 / 3)</answer>", {3, 3, 8, 8}, 24, 1, "exact"},
      // The same number twice must be used twice.
      {"<answer>5 * 5</answer>", {5, 5}, 25, 1, "exact"},
      {"<answer>5 + 20</answer>", {5, 5}, 25, 0, "wrong-numbers"},
  };
  for (const Case& c : cases) {
    Verdict verdict = VerifyCountdown(c.response, c.numbers, c.target);
    INFO(c.response << ": " << verdict.rule << ": " << verdict.reason);
    CHECK(verdict.score == c.score);
    CHECK(verdict.rule == c.rule);
    CHECK_FALSE(verdict.reason.empty());
  }
}

TEST_CASE("the format score is for well-formed answers over the right numbers") {
  CHECK(VerifyCountdown("<answer>3+7+12</answer>", {3, 7, 12}, 33, 0.1).score == 0.1);
  CHECK(VerifyCountdown("<answer>3+7</answer>", {3, 7, 12}, 33, 0.1).score == 0);
  CHECK(VerifyCountdown("<answer>3+</answer>", {3, 7, 12}, 33, 0.1).score == 0);
}

TEST_CASE("TinyZero's rule gives every complete answer its format score") {
  const std::vector<int64_t> n = {3, 7, 12};
  auto score = [&](const std::string& answer, int64_t target = 33) {
    return VerifyCountdown("<answer>" + answer + "</answer>", n, target, 0.1,
                           CountdownRule::kTinyZero)
        .score;
  };
  CHECK(score("3 * 7 + 12") == 1);
  CHECK(score("3 + 7 + 12") == 0.1);
  CHECK(score("3 + 7") == 0.1);
  CHECK(score("nothing") == 0.1);
  CHECK(score("") == 0.1);
  // As Python has it: no equation sign, ** is a power, // rounds down.
  CHECK(score("3 * 7 + 12 = 33") == 0.1);
  CHECK(score("12 - 3 ** 7", 12 - 2187) == 1);
  CHECK(score("-3 ** 7 + 12", 12 - 2187) == 1);
  CHECK(score("12 // 7 + 3", 4) == 1);
  CHECK(score("3 ** 7 ** 12", 1) == 0.1);
  CHECK(score("3 \xC3\x97 7 + 12") == 0.1);
  CHECK(VerifyCountdown("3 * 7 + 12 = 33", n, 33, 0.1, CountdownRule::kTinyZero).score == 0);
}

TEST_CASE("hostile Countdown answers end quickly") {
  CHECK(VerifyCountdown("<answer>" + std::string(4000, '(') + "</answer>", {1}, 1).rule ==
        "malformed");
  CHECK(VerifyCountdown("<answer>" + std::string(4000, '-') + "1</answer>", {1}, 1).rule ==
        "malformed");
  CHECK(VerifyCountdown("<answer>" + std::string(1000000, '1') + "</answer>", {1}, 1).score == 0);
  CHECK(VerifyCountdown("<answer>" + std::string(100, '9') + "</answer>", {1}, 1).rule ==
        "malformed");
  CHECK(VerifyCountdown(std::string("<answer>\0 1</answer>", 20), {1}, 1).score == 0);
  CHECK(VerifyCountdown("<answer>\xff\xfe</answer>", {1}, 1).rule == "malformed");
}

}  // namespace
}  // namespace e3
