#include "reward_service/countdown/countdown_verifier.h"

#include <gmpxx.h>

#include <algorithm>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace e3 {
namespace {

constexpr size_t kMaxCharacters = 4096;
constexpr int kMaxDepth = 200;
constexpr size_t kMaxDigits = 30;

std::optional<absl::string_view> LastAnswer(absl::string_view response) {
  constexpr absl::string_view kOpen = "<answer>", kClose = "</answer>";
  size_t close = response.rfind(kClose);
  if (close == absl::string_view::npos) return std::nullopt;
  size_t open = response.substr(0, close).rfind(kOpen);
  if (open == absl::string_view::npos) return std::nullopt;
  return absl::StripAsciiWhitespace(
      response.substr(open + kOpen.size(), close - open - kOpen.size()));
}

// Recursive descent over  sum := product (('+' | '-') product)*,  product := factor (('*' | '/')
// factor)*, factor := number | '-' factor | '(' sum ')'.
class Parser {
 public:
  explicit Parser(absl::string_view text) : text_(text) {}

  // nullopt with error() set when the text is not an expression, or divides by zero.
  std::optional<mpq_class> Parse() {
    std::optional<mpq_class> value = Sum(0);
    if (!value) return std::nullopt;
    SkipSpace();
    if (Take("=")) {
      right_of_equals_ = true;
      equals_ = Sum(0);
      if (!equals_) return std::nullopt;
    }
    SkipSpace();
    if (at_ < text_.size()) return Fail("unexpected text");
    return value;
  }

  const std::vector<mpz_class>& numbers() const { return numbers_; }
  const std::optional<mpq_class>& right_hand_side() const { return equals_; }
  const std::string& error() const { return error_; }

 private:
  std::optional<mpq_class> Fail(absl::string_view why) {
    if (error_.empty()) error_ = absl::StrCat(why, " at character ", at_ + 1);
    return std::nullopt;
  }

  void SkipSpace() {
    while (at_ < text_.size() && absl::ascii_isspace(static_cast<unsigned char>(text_[at_]))) ++at_;
  }

  bool Take(absl::string_view token) {
    SkipSpace();
    if (!absl::StartsWith(text_.substr(at_), token)) return false;
    at_ += token.size();
    return true;
  }

  bool TakeMinus() { return Take("-") || Take("\xE2\x88\x92"); }
  bool TakeTimes() { return Take("*") || Take("\xC3\x97"); }
  bool TakeDivide() { return Take("/") || Take("\xC3\xB7"); }

  std::optional<mpq_class> Sum(int depth) {
    std::optional<mpq_class> value = Product(depth);
    while (value) {
      bool plus = Take("+");
      if (!plus && !TakeMinus()) break;
      std::optional<mpq_class> right = Product(depth);
      if (!right) return std::nullopt;
      if (plus) {
        *value += *right;
      } else {
        *value -= *right;
      }
    }
    return value;
  }

  std::optional<mpq_class> Product(int depth) {
    std::optional<mpq_class> value = Factor(depth);
    while (value) {
      bool times = TakeTimes();
      if (!times && !TakeDivide()) break;
      std::optional<mpq_class> right = Factor(depth);
      if (!right) return std::nullopt;
      if (times) {
        *value *= *right;
      } else {
        if (*right == 0) return Fail("division by zero");
        *value /= *right;
      }
    }
    return value;
  }

  std::optional<mpq_class> Factor(int depth) {
    if (depth > kMaxDepth) return Fail("too deeply nested");
    if (TakeMinus()) {
      std::optional<mpq_class> value = Factor(depth + 1);
      if (value) *value = -*value;
      return value;
    }
    if (Take("(")) {
      std::optional<mpq_class> value = Sum(depth + 1);
      if (value && !Take(")")) return Fail("expected ')'");
      return value;
    }
    SkipSpace();
    size_t begin = at_;
    while (at_ < text_.size() && absl::ascii_isdigit(static_cast<unsigned char>(text_[at_]))) ++at_;
    if (begin == at_) return Fail("expected a number");
    if (at_ - begin > kMaxDigits) return Fail("number too long");
    mpz_class number(std::string(text_.substr(begin, at_ - begin)), 10);
    if (!right_of_equals_) numbers_.push_back(number);
    return mpq_class(number);
  }

  absl::string_view text_;
  size_t at_ = 0;
  bool right_of_equals_ = false;
  std::vector<mpz_class> numbers_;
  std::optional<mpq_class> equals_;
  std::string error_;
};

}  // namespace

Verdict VerifyCountdown(absl::string_view response, const std::vector<int64_t>& numbers,
                        int64_t target, double format_score) {
  std::optional<absl::string_view> answer = LastAnswer(response);
  if (!answer) return {0, "", "no-answer", "the response has no complete <answer>"};
  if (answer->size() > kMaxCharacters) {
    return {0, "", "malformed",
            absl::StrCat("the answer is longer than ", kMaxCharacters, " characters")};
  }
  Verdict verdict;
  verdict.extracted = std::string(*answer);
  Parser parser(*answer);
  std::optional<mpq_class> value = parser.Parse();
  if (!value) {
    verdict.rule = "malformed";
    verdict.reason = absl::StrCat("not an arithmetic expression: ", parser.error());
    return verdict;
  }
  std::vector<mpz_class> used = parser.numbers(), given;
  for (int64_t n : numbers) given.emplace_back(std::to_string(n), 10);
  std::sort(used.begin(), used.end());
  std::sort(given.begin(), given.end());
  if (used != given) {
    verdict.rule = "wrong-numbers";
    verdict.reason =
        absl::StrCat("each of ", absl::StrJoin(numbers, ", "), " must be used exactly once");
    return verdict;
  }
  const mpq_class wanted(mpz_class(std::to_string(target), 10));
  if (*value != wanted) {
    verdict.score = format_score;
    verdict.rule = "wrong-value";
    verdict.reason = absl::StrCat("the expression is ", value->get_str(), ", not ", target);
    return verdict;
  }
  if (parser.right_hand_side() && *parser.right_hand_side() != wanted) {
    verdict.score = format_score;
    verdict.rule = "wrong-equation";
    verdict.reason = absl::StrCat("the right-hand side is ", parser.right_hand_side()->get_str(),
                                  ", not ", target);
    return verdict;
  }
  verdict.score = 1;
  verdict.rule = "exact";
  verdict.reason = absl::StrCat("the expression uses each number once and equals ", target);
  return verdict;
}

}  // namespace e3
