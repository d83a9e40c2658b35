#include "reward_service/countdown/countdown_verifier.h"

#include <gmpxx.h>

#include <algorithm>
#include <cstdlib>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace e3 {
namespace {

constexpr size_t kMaxCharacters = 4096;
constexpr int kMaxDepth = 200;
constexpr size_t kMaxDigits = 30;

// Recursive descent over  sum := product (('+' | '-') product)*,  product := factor (('*' | '/')
// factor)*, factor := number | '-' factor | '(' sum ')'.
class Parser {
 public:
  // `python` adds ** and //, and takes "=" and the signs of Unicode away.
  Parser(absl::string_view text, bool python) : text_(text), python_(python) {}

  // nullopt with error() set when the text is not an expression, or divides by zero.
  std::optional<mpq_class> Parse() {
    std::optional<mpq_class> value = Sum(0);
    if (!value) return std::nullopt;
    SkipSpace();
    if (!python_ && Take("=")) {
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

  // Bounds what a value may grow to on the way.
  bool TooLarge(const mpq_class& value) {
    if (mpz_sizeinbase(value.get_num_mpz_t(), 2) + mpz_sizeinbase(value.get_den_mpz_t(), 2) <= 4096)
      return false;
    Fail("a value too large");
    return true;
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

  bool TakeMinus() { return Take("-") || (!python_ && Take("\xE2\x88\x92")); }
  bool TakeTimes() {
    SkipSpace();
    if (python_ && absl::StartsWith(text_.substr(at_), "**")) return false;
    return Take("*") || (!python_ && (Take("\xC3\x97") || Take("\xC2\xB7") || Take("\\times") ||
                                      Take("\\cdot")));
  }
  bool TakeDivide() { return Take("/") || (!python_ && (Take("\xC3\xB7") || Take("\\div"))); }

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
      if (TooLarge(*value)) return std::nullopt;
    }
    return value;
  }

  std::optional<mpq_class> Product(int depth) {
    std::optional<mpq_class> value = Factor(depth);
    while (value) {
      bool times = TakeTimes();
      const bool floor = !times && python_ && Take("//");
      if (!times && !floor && !TakeDivide()) break;
      std::optional<mpq_class> right = Factor(depth);
      if (!right) return std::nullopt;
      if (times) {
        *value *= *right;
      } else {
        if (*right == 0) return Fail("division by zero");
        *value /= *right;
        if (floor) {
          mpz_class whole;
          mpz_fdiv_q(whole.get_mpz_t(), value->get_num_mpz_t(), value->get_den_mpz_t());
          *value = whole;
        }
      }
      if (TooLarge(*value)) return std::nullopt;
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
    if (python_ && Take("+")) return Factor(depth + 1);
    std::optional<mpq_class> value = Primary(depth);
    if (!value || !python_ || !Take("**")) return value;
    std::optional<mpq_class> exponent = Factor(depth + 1);  // binds to the right
    if (!exponent) return std::nullopt;
    return Power(*value, *exponent);
  }

  std::optional<mpq_class> Power(const mpq_class& base, const mpq_class& exponent) {
    if (exponent.get_den() != 1 || !exponent.get_num().fits_sint_p() ||
        abs(exponent.get_num()) > 64)
      return Fail("a power out of range");
    const long n = exponent.get_num().get_si();
    if (base == 0 && n < 0) return Fail("division by zero");
    mpq_class result(1);
    for (long i = 0; i < std::abs(n); ++i) {
      result *= base;
      if (TooLarge(result)) return std::nullopt;
    }
    return n < 0 ? mpq_class(1 / result) : result;
  }

  std::optional<mpq_class> Primary(int depth) {
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
  const bool python_;
  size_t at_ = 0;
  bool right_of_equals_ = false;
  std::vector<mpz_class> numbers_;
  std::optional<mpq_class> equals_;
  std::string error_;
};

}  // namespace

CountdownVerifier::CountdownVerifier(CountdownProblem problem) : problem_(std::move(problem)) {}

std::optional<Answer> CountdownVerifier::FindAnswer(absl::string_view text) const {
  constexpr absl::string_view kOpen = "<answer>", kClose = "</answer>";
  const size_t close = text.rfind(kClose);
  if (close == absl::string_view::npos) return std::nullopt;
  const size_t open = text.substr(0, close).rfind(kOpen);
  if (open == absl::string_view::npos) return std::nullopt;
  absl::string_view inside = text.substr(open + kOpen.size(), close - open - kOpen.size());
  return Answer{{std::string(absl::StripAsciiWhitespace(inside))}, close + kClose.size()};
}

std::string CountdownVerifier::Key() const {
  return absl::StrCat(absl::StrJoin(problem_.numbers, " "), " = ", problem_.target, " ",
                      static_cast<int>(problem_.rule), " ",
                      absl::StrFormat("%a", problem_.format_score));
}

absl::StatusOr<Verdict> CountdownVerifier::Judge(const Answer& answer) const {
  const std::string& text = answer.readings[0];
  const bool tinyzero = problem_.rule == CountdownRule::kTinyZero;
  Verdict verdict;
  verdict.extracted = text.size() <= kMaxCharacters ? text : "";
  // What TinyZero gives to any answer, and the strict rule to a well-formed one.
  if (tinyzero) verdict.score = problem_.format_score;
  auto wrong = [&](const char* rule, std::string reason) {
    verdict.rule = rule;
    verdict.reason = std::move(reason);
    return verdict;
  };
  if (text.size() > kMaxCharacters)
    return wrong("malformed",
                 absl::StrCat("the answer is longer than ", kMaxCharacters, " characters"));
  Parser parser(text, tinyzero);
  std::optional<mpq_class> value = parser.Parse();
  if (!value)
    return wrong("malformed", absl::StrCat("not an arithmetic expression: ", parser.error()));
  std::vector<mpz_class> used = parser.numbers(), given;
  for (int64_t n : problem_.numbers) given.emplace_back(std::to_string(n), 10);
  std::sort(used.begin(), used.end());
  std::sort(given.begin(), given.end());
  if (used != given) {
    return wrong("wrong-numbers", absl::StrCat("each of ", absl::StrJoin(problem_.numbers, ", "),
                                               " must be used exactly once"));
  }
  verdict.score = problem_.format_score;
  const mpq_class wanted(mpz_class(std::to_string(problem_.target), 10));
  const bool right = tinyzero ? abs(*value - wanted) < mpq_class(1, 100000) : *value == wanted;
  if (!right) {
    return wrong("wrong-value", absl::StrCat("the expression is ", value->get_str().substr(0, 100),
                                             ", not ", problem_.target));
  }
  if (parser.right_hand_side() && *parser.right_hand_side() != wanted) {
    return wrong("wrong-equation", absl::StrCat("the right-hand side is ",
                                                parser.right_hand_side()->get_str().substr(0, 100),
                                                ", not ", problem_.target));
  }
  verdict.score = 1;
  verdict.rule = "exact";
  verdict.reason =
      absl::StrCat("the expression uses each number once and equals ", problem_.target);
  return verdict;
}

}  // namespace e3
