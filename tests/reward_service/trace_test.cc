#include <catch2/catch.hpp>

#include "reward_service/trace/trace_statistics.h"

namespace e3 {
namespace {

uint32_t Verifications(absl::string_view text, const std::vector<std::string>& phrases = {}) {
  return MeasureTrace(text, phrases).verifications();
}

TEST_CASE("sentences that start with a phrase count once") {
  CHECK(Verifications("Wait, is that right? But wait, no. Alternatively, try 3.") == 3);
  CHECK(Verifications("I cannot wait. The Wait is over.") == 0);
  CHECK(Verifications("Waiting is hard. Waits are long.") == 0);
  CHECK(Verifications("<think>\nWait: 24 - 73") == 1);
  CHECK(Verifications(
            "It is 3.\nWait\nBut hold on, 4. Is there another way? But let me double check.") == 4);
  CHECK(Verifications("Try : 3 * 7 = 21 , no . Wait Try : 3 + 7 = 10 , no . </think> <answer>") ==
        1);
  CHECK(Verifications("1.5. Wait 2.5 Wait") == 1);
  CHECK(Verifications("") == 0);
  CHECK(Verifications("Check: 3. Wait.", {"Check:"}) == 1);
}

TEST_CASE("attempts are lines with equations, or sentences where there is one line") {
  v1::TraceStatistics s = MeasureTrace(
      "First attempt: 3 * 7 = 21. Then 21 + 12 = 33, yes.\nTry 3 + 7 = 10, 10 + 12 = 22, no.\nno "
      "equation\nTry 3 + 7 = "
      "10, 10 + 12 = 22, no.",
      {});
  CHECK(s.attempts() == 3);
  CHECK(s.unique_attempts() == 2);
  CHECK(s.equations() == 6);
  CHECK(MeasureTrace("Try : 3 * 7 = 21 , no . Wait Try : 3 + 7 = 10 , no .", {}).attempts() == 2);
  CHECK(MeasureTrace("x = 5\nno equation here = at all", {}).attempts() == 0);
  CHECK(MeasureTrace("4 - 7 = -3", {}).equations() == 1);
  CHECK(MeasureTrace("\xC3\xA9t\xC3\xA9", {}).characters() == 3);
}

TEST_CASE("a repeating stream at the end is seen") {
  std::string line = "and then we try again. ";
  CHECK(EndsRepeating(line + line + line + line + line));
  CHECK(EndsRepeating("text" + std::string(64, '9')));
  CHECK_FALSE(EndsRepeating(line + line));
  CHECK_FALSE(EndsRepeating(line + line + line + line + line +
                            "The answer is 42, of course, since six times seven is forty-two."));
  CHECK_FALSE(EndsRepeating(""));
}

}  // namespace
}  // namespace e3
