#include <catch2/catch.hpp>

#include "reward_service/math/math_verifier.h"
#include "reward_service/multiplication/multiplication_verifier.h"

namespace e3 {
namespace {

TEST_CASE("the last complete box is the answer") {
  CHECK(LastBoxed("so \\boxed{42}") == "42");
  CHECK(LastBoxed("\\boxed{1} then \\boxed{\\frac{1}{2}}") == "\\frac{1}{2}");
  CHECK(LastBoxed("\\fbox{7}") == "7");
  CHECK(LastBoxed("\\boxed{\\{1,2\\}}") == "\\{1,2\\}");
  CHECK(LastBoxed("<think>\\boxed{1}</think> \\boxed{2}") == "2");
  CHECK_FALSE(LastBoxed("no box").has_value());
  CHECK_FALSE(LastBoxed("cut off \\boxed{4").has_value());
  CHECK_FALSE(LastBoxed("\\boxed{1} and cut off \\boxed{\\frac{1}{").has_value());
}

struct Case {
  const char* answer;
  const char* gold;
  bool right;
};

TEST_CASE("boxed answers are compared exactly") {
  const std::vector<Case> cases = {
      {"42", "42", true},
      {"42", "43", false},
      {"042", "42", true},
      {"-3", "-3", true},
      {"-3", "3", false},
      {"+3", "3", true},
      {"\xE2\x88\x92"
       "3",
       "-3", true},
      {"0.5", "1/2", true},
      {".5", "\\frac{1}{2}", true},
      {"0.333", "1/3", false},
      {"\\dfrac{3}{6}", "\\frac12", true},
      {"\\frac1{2}", "0.50", true},
      {"-\\frac{1}{2}", "\\frac{-1}{2}", true},
      {"3/4", "\\tfrac{3}{4}", true},
      {"3\\frac{1}{2}", "7/2", true},
      {"1,234,567", "1234567", true},
      {"1{,}000", "1000", true},
      {"1,2", "12", false},
      {"12,34", "1234", false},
      {"1 2", "12", false},
      {"1 000", "1000", true},
      {"3 1/2", "7/2", true},
      {"3 1/2", "31/2", false},
      {"\\textbf{42}", "42", true},
      {"\\textrm{42}", "42", true},
      {"50.0\\%", "50\\%", true},
      {"50\\%", "51\\%", false},
      {"\\$18", "18", true},
      {"$18$", "18", true},
      {"18.", "18", true},
      {"18.00", "18", true},
      {"90^\\circ", "90", true},
      {"50\\%", "50", true},
      {"50\\%", "0.5", false},
      {"x=5", "5", true},
      {"\\text{Evelyn}", "Evelyn", true},
      {"evelyn", "\\text{Evelyn}", true},
      {"Ann", "Evelyn", false},
      {"\\left( 1, 2 \\right)", "(1,2)", true},
      {"(2,1)", "(1,2)", false},
      {"\\sqrt{2}", "\\sqrt{2}", true},
      {"\\sqrt{2}", "\\sqrt{3}", false},
      {"", "0", false},
      {"1/0", "0", false},
      {"\\frac{1}{0}", "\\frac{2}{0}", false},
      {"100000000000000000000000001", "100000000000000000000000000", false},
      {"\\boxed{5}", "5", true},
  };
  for (const Case& c : cases) {
    Verdict verdict = VerifyMath(std::string("so \\boxed{") + c.answer + "}.", c.gold);
    INFO(c.answer << " against " << c.gold << ": " << verdict.rule << ": " << verdict.reason);
    CHECK((verdict.score == 1) == c.right);
  }
  CHECK(VerifyMath("\\boxed{5}", "\\boxed{5}").score == 1);
  CHECK(VerifyMath("5", "5").rule == "no-answer");
}

TEST_CASE("hostile boxes end quickly") {
  std::string deep;
  for (int i = 0; i < 5000; ++i) deep += "\\boxed{";
  CHECK(VerifyMath(deep + "1" + std::string(5000, '}'), "1").score >= 0);
  CHECK(VerifyMath(deep, "1").rule == "no-answer");
  CHECK(VerifyMath("\\boxed{" + std::string(1 << 20, '9') + "}", "1").rule == "no-answer");
  CHECK(VerifyMath("\\boxed{10^{10^{10}}}", "1").score == 0);
  std::string fractions;
  for (int i = 0; i < 2000; ++i) fractions += "\\frac{";
  CHECK(VerifyMath("\\boxed{" + fractions + std::string(2000, '}') + "}", "1").score == 0);
  CHECK(VerifyMath("\\boxed{\xff\xfe}", "1").score == 0);
}

TEST_CASE("products are exact at any length") {
  CHECK(VerifyMultiplication("\\boxed{9801}", "99", "99")->score == 1);
  CHECK(VerifyMultiplication("\\boxed{9,801}", "99", "99")->score == 1);
  CHECK(VerifyMultiplication("\\boxed{9802}", "99", "99")->score == 0);
  CHECK(VerifyMultiplication("\\boxed{15241578753238836750495351562536198787501905199875019052100}",
                             "123456789012345678901234567890", "123456789012345678901234567890")
            ->score == 1);
  CHECK_FALSE(VerifyMultiplication("\\boxed{1}", "1x", "1").ok());
}

}  // namespace
}  // namespace e3
