#include <catch2/catch.hpp>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "reward_service/math/extraction.h"
#include "reward_service/math/math_verifier.h"
#include "reward_service/math/parser.h"
#include "reward_service/multiplication/multiplication_verifier.h"

namespace e3 {
namespace {

Verdict Judge(const std::string& response, const std::string& gold,
              const MathOptions& options = {}) {
  return *Verify(MathVerifier(gold, options), response);
}

TEST_CASE("the table of cases") {
  std::ifstream file(E3_SOURCE_DIR "/tests/reward_service/math_cases.txt");
  REQUIRE(file);
  std::string line, group;
  int count = 0, number = 0;
  while (std::getline(file, line)) {
    ++number;
    if (absl::StartsWith(line, "## ")) group = line.substr(3);
    if (line.empty() || line[0] == '#') continue;
    std::vector<std::string> fields = absl::StrSplit(line, ";;");
    REQUIRE(fields.size() == 4);
    for (std::string& f : fields)
      f = absl::StrReplaceAll(absl::StripAsciiWhitespace(f), {{"<nl>", "\n"}});
    const auto& [verdict, gold, answer, why] = std::tie(fields[0], fields[1], fields[2], fields[3]);
    const bool boxed = absl::StrContains(answer, "\\boxed") || absl::StrContains(answer, "\\fbox");
    Verdict v = Judge(boxed ? answer : "So we have\n$$\\boxed{" + answer + "}$$", gold);
    INFO("line " << number << ", " << group << ", " << why << ": " << answer << " against " << gold
                 << ": " << v.rule << ": " << v.reason);
    CHECK((verdict == "=" || verdict == "!"));
    CHECK(v.score == (verdict == "=" ? 1 : 0));
    CHECK_FALSE(v.rule.empty());
    CHECK_FALSE(v.reason.empty());
    ++count;
  }
  CHECK(count >= 500);
}

TEST_CASE("the last complete box is the answer") {
  auto box = [](absl::string_view text) {
    std::optional<Answer> answer = FindBoxed(text);
    return answer ? answer->readings[0] : "(none)";
  };
  CHECK(box("so \\boxed{42}") == "42");
  CHECK(box("\\boxed{1} then \\boxed{\\frac{1}{2}}") == "\\frac{1}{2}");
  CHECK(box("\\fbox{7}") == "7");
  CHECK(box("\\boxed{\\{1,2\\}}") == "\\{1,2\\}");
  CHECK(box("\\boxed {5}") == "5");
  CHECK(box("\\boxed{a \\boxed{b} c}") == "a \\boxed{b} c");
  CHECK(box("<think>\\boxed{1}</think> \\boxed{2}") == "2");
  CHECK(box("no box") == "(none)");
  CHECK(box("\\boxedsomething{3}") == "(none)");
  CHECK(box("cut off \\boxed{4") == "(none)");
  CHECK(box("\\boxed{1} and cut off \\boxed{\\frac{1}{") == "(none)");
  CHECK(box("so \\boxed 3.5 is it") == "3.5");
  CHECK(box("\\boxed{outer is cut \\boxed{5}") == "5");
  CHECK(box("stray } and { then \\boxed{5}") == "5");
  const std::string text = "so \\boxed{42} indeed";
  CHECK(FindBoxed(text)->end == text.find(" indeed"));
}

TEST_CASE("an answer anywhere, for evaluation") {
  MathOptions any;
  any.extract = Extract::kAny;
  struct Case {
    const char* response;
    const char* gold;
    bool right;
  };
  const std::vector<Case> cases = {
      {"The answer is 42.", "42", true},
      {"Thus $2+3=5$. The answer is $5$.", "5", true},
      {"The answer is $5$ because $2+3=5$ and $x=7$.", "5", true},
      {"The final answer is: **42**", "42", true},
      {"Answer: 3/4", "\\frac34", true},
      {"**Answer:** 12 apples", "12", true},
      {"so we get\n#### 1,234", "1234", true},
      {"We add and get $x = 17$", "17", true},
      {"Hence \\[ \\frac{1}{2} \\]", "0.5", true},
      {"Hence \\( 7 \\) and we are done", "7", true},
      {"They have 3 boxes and 4 bags, so 12 in all", "12", true},
      {"They have 3 boxes and 4 bags, so 12 in all", "4", false},
      {"\\boxed{5}, though the answer is 6", "5", true},
      {"42", "42", true},
      {"x = 2 or x = 3", "2, 3", true},
      {"The answer is $2$ and $3$.", "2, 3", true},
      {"The answer is (B).", "\\text{(B)}", true},
      {"The answer is Evelyn.", "\\text{Evelyn}", true},
      {"I do not know.", "5", false},
      {"", "5", false},
      // Gold answers that are prose.
      {"\\boxed{5}", "The answer is $5$.", true},
      {"\\boxed{18}", "Janet sells 16 - 3 - 4 = 9 eggs.\nShe makes 9 * 2 = 18 dollars.\n#### 18",
       true},
      {"\\boxed{18}", "Adding up, we have $x = 17 + 1 = \\boxed{18}$.", true},
      {"\\boxed{19}", "Adding up, we have $x = 17 + 1 = \\boxed{18}$.", false},
  };
  for (const Case& c : cases) {
    Verdict v = Judge(c.response, c.gold, any);
    INFO(c.response << " against " << c.gold << ": " << v.extracted << ": " << v.rule << ": "
                    << v.reason);
    CHECK((v.score == 1) == c.right);
    if (!absl::StrContains(c.response, "box")) CHECK(Judge(c.response, c.gold).score == 0);
  }
}

TEST_CASE("precision is for gold answers that are decimals") {
  MathOptions two;
  two.comparison.precision = 2;
  CHECK(Judge("\\boxed{3.14}", "3.14159", two).score == 1);
  CHECK(Judge("\\boxed{3.15}", "3.14159", two).score == 0);
  CHECK(Judge("\\boxed{0.33}", "\\frac13", two).score == 0);
  CHECK(Judge("\\boxed{(3.14, 1)}", "(3.14159, 1)", two).score == 1);
}

TEST_CASE("errors of the parser have a position") {
  math::Arena arena;
  math::Limits limits;
  auto error = [&](absl::string_view text) {
    auto parsed = math::Parse(text, {}, limits, &arena);
    return parsed.ok() ? std::string("parsed") : std::string(parsed.status().message());
  };
  CHECK(error("1 + * 2") == "unexpected '*' at character 5");
  CHECK(error("\\frac{1}{") == "the answer breaks off at character 10");
  CHECK(error("\\nonsense") == "unknown command \\nonsense at character 1");
  CHECK(error("\xff") == "not UTF-8 at character 1");
  CHECK(error(std::string("1\0", 2)) == "a control character at character 2");
  CHECK(error("1012_2") == "a digit that base 2 does not have at character 7");
}

// Under a sanitizer too; the time limit is the test's.
TEST_CASE("hostile boxes end quickly") {
  auto repeat = [](const std::string& s, int n) {
    std::string out;
    for (int i = 0; i < n; ++i) out += s;
    return out;
  };
  const std::vector<std::string> bombs = {
      "10^{10^{10}}",
      "10^{10^{10^{10}}}",
      "9^{9^{9^9}}",
      "1000000!",
      "((100!)!)!",
      "\\binom{10^9}{5\\cdot10^8}",
      "2^{2^{2^{2^{2^2}}}}",
      "\\sum_{k=1}^{10^9} k",
      "\\sum_{a=1}^{9999}\\sum_{b=1}^{9999}\\sum_{c=1}^{9999} abc",
      "\\prod_{k=1}^{100000} k^k",
      "\\sum_{k=1}^{9999} \\frac{1}{k^k}",
      "\\sqrt[1000]{" + repeat("9", 4000) + "}",
      "x^{10^9}",
      "(x+1)^{10000}",
      repeat("(x+1)", 3000),
      "\\sin(10^{1000})",
      "\\tan(10^{10^{10}})",
      "e^{e^{e^{e^e}}}",
      "\\ln\\ln\\ln 10^{100}",
      repeat("{", 2000) + repeat("}", 2000),
      repeat("(", 2000) + "1" + repeat(")", 2000),
      repeat("\\frac{", 2000),
      repeat("\\sqrt{", 500) + "2" + repeat("}", 500),
      repeat("-", 3000) + "1",
      repeat("2^", 3000) + "2",
      repeat("\\boxed{", 1000) + "1" + repeat("}", 1000),
      repeat("1,", 5000) + "1",
      repeat("\\pm", 200) + "1",
      repeat("\\pm1", 40),
      repeat("|", 3000),
      repeat("x_", 3000),
      repeat("1+", 7000) + "1",
      repeat("5!", 3000),
      "1" + repeat("!", 3000),
      repeat("9", 16000),
      "0." + repeat("3", 15000) + "\\ldots",
      "1e999999999",
      "1e-99999",
      "1" + repeat("\\frac12", 2000),
      "\\begin{pmatrix}" + repeat("1&", 5000) + "1\\end{pmatrix}",
      repeat("\\begin{pmatrix}", 800),
      "\\{" + repeat("1,", 90) + "1\\}",
      "\\left[" + repeat("0,1)\\cup[", 500) + "2,3]",
      repeat("\\sin ", 3000) + "x",
      "\\gcd(" + repeat("9", 5000) + "," + repeat("7", 5000) + ")",
      "\\lfloor 10^{10^{5}}\\pi \\rfloor",
      "\\arcsin(10^{99999})",
      "(10^{30000})^{1/7}",
      "\\log_{1}5",
      "0^{0^{0}}",
      "\\Gamma(10^{10})",
      "(1+10^{-20})^{10^{20}}",
      "(-1)^{10^{30}}",
      "i^{10^{100}}",
      "\\sqrt{2}^{10^{6}}",
      "(\\sqrt2+1)^{10^{5}}",
      "1.0000001^{10^{9}}"};
  for (const std::string& bomb : bombs) {
    INFO(bomb.substr(0, 60));
    for (const std::string& gold :
         {std::string("1"), std::string("\\pi"), std::string("x^2"), bomb.substr(0, 8000) + "+0"}) {
      absl::StatusOr<Verdict> v = Verify(MathVerifier(gold), "\\boxed{" + bomb + "}");
      // A gold answer beyond the limits is an error, not a verdict.
      if (v.ok()) CHECK_FALSE(v->rule.empty());
      if (!v.ok()) CHECK((absl::IsResourceExhausted(v.status()) && gold.size() > 100));
    }
  }
  CHECK(Judge(repeat("\\boxed{", 5000) + "1" + repeat("}", 5000), "1").score <= 1);
  CHECK(Judge(repeat("\\boxed{", 100000), "1").rule == "no-answer");
  CHECK(Judge("\\boxed{" + std::string(1 << 22, '9') + "}", "1").rule == "limit");
  CHECK(Judge(std::string(1 << 22, 'a') + "\\boxed{1}", "1").score == 1);
  CHECK(Judge("\\boxed{\xff\xfe}", "1").score == 0);
  // Floods of what an answer may stand behind, where it may stand anywhere.
  MathOptions any;
  any.extract = Extract::kAny;
  for (const char* flood : {"\\[ ", "\\( ", "$", "$$", "$5 ", "a1", "answer ", "answer is ",
                            "option ", "#### ", "</think>", "\\boxed{", "1.", "-1", " is "}) {
    INFO(flood);
    CHECK(Judge(repeat(flood, 300000), "123456", any).score == 0);
    CHECK(Judge("\\boxed{7} " + repeat(flood, 300000), "8", any).score == 0);
  }
  CHECK(Judge(std::string("\\boxed{1\0}", 10), "1").score == 0);
}

TEST_CASE("products are exact at any length, and written as integers") {
  auto judge = [](const std::string& response, const std::string& a, const std::string& b) {
    return Verify(**MultiplicationVerifier::Create(a, b), response)->score;
  };
  CHECK(judge("\\boxed{9801}", "99", "99") == 1);
  CHECK(judge("\\boxed{9,801}", "99", "99") == 1);
  CHECK(judge("\\boxed{9\\,801}", "99", "99") == 1);
  CHECK(judge("\\boxed{9802}", "99", "99") == 0);
  CHECK(judge("\\boxed{99 \\times 99}", "99", "99") == 0);
  CHECK(judge("\\boxed{99^2}", "99", "99") == 0);
  CHECK(judge("9801", "99", "99") == 0);
  CHECK(judge("\\boxed{-9801}", "-99", "99") == 1);
  CHECK(judge("\\boxed{0}", "-99", "0") == 1);
  CHECK(judge("\\boxed{15241578753238836750495351562536198787501905199875019052100}",
              "123456789012345678901234567890", "123456789012345678901234567890") == 1);
  CHECK_FALSE(MultiplicationVerifier::Create("1x", "1").ok());
  CHECK_FALSE(MultiplicationVerifier::Create("", "1").ok());
}

}  // namespace
}  // namespace e3
