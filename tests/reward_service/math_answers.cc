// Every answer of the MATH training set verifies against itself and other spellings, and does not
// verify against a changed one. Reads math_train.jsonl in the folder that is the only argument;
// exits with 77 (skipped) when it is not there.
#include <fstream>
#include <iostream>
#include <map>
#include <set>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "nlohmann/json.hpp"
#include "re2/re2.h"
#include "reward_service/math/math_verifier.h"

namespace e3 {
namespace {

double Score(const std::string& answer, const std::string& gold, std::string* rule) {
  absl::StatusOr<Verdict> verdict = Verify(MathVerifier(gold), "Thus $\\boxed{" + answer + "}$.");
  if (!verdict.ok()) return -1;
  *rule = absl::StrCat(verdict->rule, ": ", verdict->reason);
  return verdict->score;
}

// Spellings that mean the same.
std::set<std::string> Same(const std::string& answer) {
  std::set<std::string> same;
  same.insert(absl::StrCat(" ", absl::StrReplaceAll(answer, {{" ", "  "}}), " "));
  same.insert("\\displaystyle " + answer);
  same.insert(absl::StrCat("$", answer, "$"));
  same.insert(absl::StrReplaceAll(answer, {{"\\dfrac", "\\frac"}, {"\\tfrac", "\\frac"}}));
  same.insert(absl::StrReplaceAll(absl::StrReplaceAll(answer, {{"\\dfrac", "\\frac"}}),
                                  {{"\\frac", "\\dfrac"}}));
  if (!absl::StrContains(answer, "\\left"))
    same.insert(absl::StrReplaceAll(
        answer, {{"(", "\\left("}, {")", "\\right)"}, {"[", "\\left["}, {"]", "\\right]"}}));
  if (absl::StrContains(answer, "\\sqrt["))
    same.erase(absl::StrReplaceAll(answer, {{"[", "\\left["}, {"]", "\\right]"}}));
  static const RE2 kFraction("^(-?)\\\\[dt]?frac\\{(\\d+)\\}\\{(\\d+)\\}$");
  std::string sign, top, bottom;
  if (RE2::FullMatch(answer, kFraction, &sign, &top, &bottom)) {
    same.insert(absl::StrCat(sign, top, "/", bottom));
    same.insert(absl::StrCat("\\frac{", sign, top, "0}{", bottom, "0}"));
  }
  static const RE2 kInteger("^-?\\d{1,9}$");
  if (RE2::FullMatch(answer, kInteger)) {
    const long long n = std::stoll(answer);
    same.insert(answer + ".0");
    same.insert(absl::StrCat("x = ", answer));
    same.insert(absl::StrCat("\\frac{", 7 * n, "}{7}"));
    same.insert(absl::StrCat(n - 5, " + 5"));
    same.insert(answer + "\\text{ units}");
  }
  static const RE2 kDecimal("^-?\\d*\\.\\d+$");
  if (RE2::FullMatch(answer, kDecimal)) same.insert(answer + "0");
  // A list in another order.
  static const RE2 kPair("^([^,()\\[\\]{}]+),([^,()\\[\\]{}]+)$");
  std::string first, second;
  static const RE2 kThousands("\\d,(\\\\!)?\\d{3}(\\D|$)");
  if (RE2::FullMatch(answer, kPair, &first, &second) && !RE2::PartialMatch(answer, kThousands) &&
      !absl::StrContains(answer, "\\text"))
    same.insert(absl::StrCat(second, ", ", first));
  static const RE2 kUnion("^([^u]+)\\\\cup([^u]+)$");
  if (RE2::FullMatch(answer, kUnion, &first, &second))
    same.insert(absl::StrCat(second, " \\cup ", first));
  same.erase(answer);
  return same;
}

// Spellings that mean something else.
std::set<std::string> Other(const std::string& answer) {
  std::set<std::string> other;
  // The first and the last number, off by one; not a base, and not an index of a root.
  static const RE2 kNumber("(\\d+)");
  re2::StringPiece rest(answer), match;
  std::vector<std::pair<size_t, std::string>> numbers;
  while (RE2::FindAndConsume(&rest, kNumber, &match)) {
    if (match.size() < 10)
      numbers.emplace_back(static_cast<size_t>(match.data() - answer.data()), std::string(match));
  }
  for (size_t i : {size_t{0}, numbers.size() - 1}) {
    if (numbers.empty()) break;
    const auto& [at, digits] = numbers[i];
    if (at > 0 && (answer[at - 1] == '_' || (at > 1 && answer.substr(at - 2, 2) == "_{"))) continue;
    std::string next = absl::StrCat(std::stoll(digits) + 1);
    // 09 + 1 keeps its place: .039 to .040.
    if (next.size() < digits.size()) next = std::string(digits.size() - next.size(), '0') + next;
    other.insert(answer.substr(0, at) + next + answer.substr(at + digits.size()));
  }
  const bool words = absl::StartsWith(answer, "\\text") || absl::StartsWith(answer, "\\mbox");
  static const RE2 kZero("^[^1-9a-zA-Z]*$|^0\\D");  // -0 is 0
  const bool zero = RE2::PartialMatch(answer, kZero) || absl::StrContains(answer, "0 \\\\ 0") ||
                    absl::StrContains(answer, "0 & 0 \\\\ 0 & 0");
  if (absl::StartsWith(answer, "-")) {
    other.insert(answer.substr(1));
  } else if (!words && !zero &&
             (absl::ascii_isdigit(static_cast<unsigned char>(answer[0])) || answer[0] == '\\') &&
             !absl::StrContains(answer, ":")) {
    other.insert("-" + answer);
  }
  static const RE2 kPoint("^\\(([^,()]*),([^,()]*)\\)$");
  std::string x, y;
  if (RE2::FullMatch(answer, kPoint, &x, &y) &&
      absl::StripAsciiWhitespace(x) != absl::StripAsciiWhitespace(y))
    other.insert(absl::StrCat("(", y, ",", x, ")"));
  static const RE2 kInterval("^\\[([^,\\[\\]()]*),([^,\\[\\]()]*)([\\])])$");
  std::string close;
  if (RE2::FullMatch(answer, kInterval, &x, &y, &close)) {
    other.insert(absl::StrCat("(", x, ",", y, close));
    if (!absl::StrContains(y, "infty"))
      other.insert(absl::StrCat("[", x, ",", y, close == "]" ? ")" : "]"));
  }
  other.erase(answer);
  return other;
}

int Run(const std::string& folder) {
  std::ifstream file(folder + "/math_train.jsonl");
  if (!file) {
    std::cout << "no math_train.jsonl in " << folder << ": skipped\n";
    return 77;
  }
  int64_t answers = 0, missing = 0, same = 0, other = 0, wrong = 0, few = 0;
  std::string line, rule;
  auto fail = [&](const std::string& what, const std::string& answer, const std::string& gold) {
    if (++wrong <= 50)
      std::cout << what << ": " << answer << " against " << gold << " (" << rule << ")\n";
  };
  while (std::getline(file, line)) {
    nlohmann::json row = nlohmann::json::parse(line);
    if (!row["answer"].is_string() || row["answer"].get<std::string>().empty()) {
      ++missing;
      continue;
    }
    const std::string gold = row["answer"];
    ++answers;
    if (Score(gold, gold, &rule) != 1) fail("not itself", gold, gold);
    std::set<std::string> spellings = Same(gold);
    few += spellings.size() < 2;
    for (const std::string& s : spellings) {
      ++same;
      if (Score(s, gold, &rule) != 1) fail("not the same", s, gold);
    }
    for (const std::string& s : Other(gold)) {
      ++other;
      if (Score(s, gold, &rule) != 0) fail("the same", s, gold);
    }
  }
  std::cout << answers << " answers (" << missing << " rows have none), " << same
            << " other spellings, " << other << " changed ones, " << wrong << " wrong verdicts, "
            << few << " answers with fewer than two spellings\n";
  return wrong == 0 && few == 0 && answers > 7000 ? 0 : 1;
}

}  // namespace
}  // namespace e3

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: math_answers FOLDER\n";
    return 2;
  }
  return e3::Run(argv[1]);
}
