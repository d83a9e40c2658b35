#include "reward_service/math/math_verifier.h"

#include <gmpxx.h>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"

namespace e3 {
namespace {

constexpr size_t kMaxCharacters = 16384;
constexpr size_t kMaxDigits = 4096;

// Index after the brace that closes the one at `open`; npos when it is not closed.
size_t EndOfGroup(absl::string_view text, size_t open) {
  int depth = 0;
  for (size_t i = open; i < text.size(); ++i) {
    if (text[i] == '\\') {
      ++i;  // an escaped brace is a character, not a group
    } else if (text[i] == '{') {
      ++depth;
    } else if (text[i] == '}' && --depth == 0) {
      return i + 1;
    }
  }
  return absl::string_view::npos;
}

// \name{content} -> content, for commands that only style. \text is not the beginning of \textbf.
void Unwrap(std::string& text, absl::string_view command) {
  size_t from = 0;
  for (size_t at; (at = text.find(command.data(), from, command.size())) != std::string::npos;) {
    size_t open = at + command.size();
    if (open < text.size() && absl::ascii_isalpha(static_cast<unsigned char>(text[open]))) {
      from = open;
      continue;
    }
    size_t end =
        open < text.size() && text[open] == '{' ? EndOfGroup(text, open) : std::string::npos;
    if (end == std::string::npos) {
      text.erase(at, command.size());
    } else {
      text =
          absl::StrCat(text.substr(0, at), text.substr(open + 1, end - open - 2), text.substr(end));
    }
  }
}

// What \frac12, \frac1{2} and \frac{1}2 mean, with the braces that they leave out.
std::string BraceFractions(absl::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    if (!absl::StartsWith(text.substr(i), "\\frac")) {
      out.push_back(text[i++]);
      continue;
    }
    out += "\\frac";
    i += 5;
    for (int argument = 0; argument < 2 && i < text.size(); ++argument) {
      if (text[i] == '{') {
        size_t end = EndOfGroup(text, i);
        if (end == absl::string_view::npos) break;
        absl::StrAppend(&out, "{", BraceFractions(text.substr(i + 1, end - i - 2)), "}");
        i = end;
      } else if (text[i] != '\\') {
        absl::StrAppend(&out, "{", text.substr(i, 1), "}");
        ++i;
      }
    }
  }
  return out;
}

std::string Normalize(absl::string_view raw) {
  std::string text(absl::StripAsciiWhitespace(raw));
  text = absl::StrReplaceAll(
      text, {{"\\dfrac", "\\frac"}, {"\\tfrac", "\\frac"}, {"\\cfrac", "\\frac"}, {"\\left", ""},
             {"\\right", ""},       {"\\!", ""},           {"\\,", ""},           {"\\;", ""},
             {"\\:", ""},           {"\\ ", ""},           {"\\$", ""},           {"$", ""},
             {"{,}", ""},           {"\\%", "%"},          {"^\\circ", ""},       {"^{\\circ}", ""},
             {"\\degree", ""},      {"\xC2\xB0", ""},      {"\xE2\x88\x92", "-"}, {"~", ""}});
  for (const char* command :
       {"\\text", "\\textbf", "\\textit", "\\textrm", "\\mathrm", "\\mathbf", "\\mbox"})
    Unwrap(text, command);
  std::string packed;
  for (char c : text) {
    if (!absl::ascii_isspace(static_cast<unsigned char>(c))) {
      packed.push_back(c);
    } else if (!packed.empty() && packed.back() != ' ') {
      packed.push_back(' ');
    }
  }
  // White space separates two numbers, and nothing else: "1 2" is not 12.
  std::string spaced = std::move(packed);
  packed.clear();
  auto digit = [&](size_t i) {
    return i < spaced.size() && absl::ascii_isdigit(static_cast<unsigned char>(spaced[i]));
  };
  for (size_t i = 0; i < spaced.size(); ++i) {
    if (spaced[i] != ' ' || (i > 0 && digit(i - 1) && digit(i + 1))) packed.push_back(spaced[i]);
  }
  while (!packed.empty() && packed.back() == '.') packed.pop_back();
  // x=5 answers "what is x" as 5 does.
  size_t equals = packed.find('=');
  if (equals == 1 && absl::ascii_isalpha(static_cast<unsigned char>(packed[0]))) packed.erase(0, 2);
  return BraceFractions(packed);
}

bool AllDigits(absl::string_view text) {
  if (text.empty() || text.size() > kMaxDigits) return false;
  for (char c : text) {
    if (!absl::ascii_isdigit(static_cast<unsigned char>(c))) return false;
  }
  return true;
}

// 1,234,567 or 1 234 567, separated at every third digit; also plain digits.
std::optional<std::string> Digits(absl::string_view text) {
  if (AllDigits(text)) return std::string(text);
  std::string digits;
  size_t comma = text.find_first_of(", ");
  if (comma == absl::string_view::npos || comma == 0 || comma > 3) return std::nullopt;
  absl::StrAppend(&digits, text.substr(0, comma));
  for (size_t i = comma; i < text.size(); i += 4) {
    if (text[i] != text[comma] || i + 4 > text.size()) return std::nullopt;
    absl::StrAppend(&digits, text.substr(i + 1, 3));
  }
  return AllDigits(digits) ? std::optional<std::string>(digits) : std::nullopt;
}

std::optional<mpq_class> Unsigned(absl::string_view text) {
  size_t point = text.find('.');
  if (point == absl::string_view::npos) {
    std::optional<std::string> digits = Digits(text);
    if (!digits) return std::nullopt;
    return mpq_class(mpz_class(*digits, 10));
  }
  absl::string_view fraction = text.substr(point + 1);
  std::string whole = "0";
  if (point > 0) {
    std::optional<std::string> digits = Digits(text.substr(0, point));
    if (!digits) return std::nullopt;
    whole = *digits;
  }
  if (!AllDigits(fraction)) return std::nullopt;
  mpq_class value(mpz_class(absl::StrCat(whole, fraction), 10),
                  mpz_class("1" + std::string(fraction.size(), '0'), 10));
  value.canonicalize();
  return value;
}

std::optional<mpq_class> Rational(absl::string_view text, int depth = 0) {
  if (text.empty() || depth > 4) return std::nullopt;
  if (text[0] == '-' || text[0] == '+') {
    std::optional<mpq_class> value = Rational(text.substr(1), depth + 1);
    if (value && text[0] == '-') *value = -*value;
    return value;
  }
  if (text[0] == '{' && EndOfGroup(text, 0) == text.size())
    return Rational(text.substr(1, text.size() - 2), depth + 1);
  size_t frac = text.find("\\frac{");
  if (frac != absl::string_view::npos) {
    size_t first_end = EndOfGroup(text, frac + 5);
    if (first_end == absl::string_view::npos || first_end >= text.size() || text[first_end] != '{')
      return std::nullopt;
    size_t second_end = EndOfGroup(text, first_end);
    if (second_end != text.size()) return std::nullopt;
    std::optional<mpq_class> top = Rational(text.substr(frac + 6, first_end - frac - 7), depth + 1);
    std::optional<mpq_class> bottom =
        Rational(text.substr(first_end + 1, second_end - first_end - 2), depth + 1);
    if (!top || !bottom || *bottom == 0) return std::nullopt;
    mpq_class value = *top / *bottom;
    if (frac == 0) return value;
    // 3\frac{1}{2}: a mixed number.
    std::optional<mpq_class> whole = Unsigned(text.substr(0, frac));
    if (!whole || whole->get_den() != 1) return std::nullopt;
    return mpq_class(*whole + value);
  }
  size_t slash = text.find('/');
  if (slash != absl::string_view::npos) {
    const size_t space = text.substr(0, slash).rfind(' ');
    const size_t begin = space == absl::string_view::npos ? 0 : space + 1;
    std::optional<mpq_class> top = Rational(text.substr(begin, slash - begin), depth + 1);
    std::optional<mpq_class> bottom = Rational(text.substr(slash + 1), depth + 1);
    if (!top || !bottom || *bottom == 0) return std::nullopt;
    if (begin == 0) return mpq_class(*top / *bottom);
    // 3 1/2: a mixed number.
    std::optional<mpq_class> whole = Unsigned(text.substr(0, space));
    if (!whole || whole->get_den() != 1) return std::nullopt;
    return mpq_class(*whole + *top / *bottom);
  }
  return Unsigned(text);
}

}  // namespace

std::optional<std::string> LastBoxed(absl::string_view response) {
  size_t boxed = response.rfind("\\boxed{"), fbox = response.rfind("\\fbox{");
  if (boxed == absl::string_view::npos && fbox == absl::string_view::npos) return std::nullopt;
  bool is_boxed =
      fbox == absl::string_view::npos || (boxed != absl::string_view::npos && boxed > fbox);
  size_t open = is_boxed ? boxed + 6 : fbox + 5;
  size_t end = EndOfGroup(response, open);
  if (end == absl::string_view::npos) return std::nullopt;
  return std::string(response.substr(open + 1, end - open - 2));
}

Verdict VerifyMath(absl::string_view response, absl::string_view gold) {
  std::optional<std::string> answer = LastBoxed(response);
  if (!answer) return {0, "", "no-answer", "the response has no complete \\boxed{}"};
  if (answer->size() > kMaxCharacters) return {0, "", "no-answer", "the boxed answer is too long"};
  Verdict verdict;
  verdict.extracted = *answer;
  if (gold.size() > kMaxCharacters) gold = gold.substr(0, kMaxCharacters);
  std::optional<std::string> boxed_gold = LastBoxed(gold);
  std::string a = Normalize(*answer), g = Normalize(boxed_gold ? *boxed_gold : std::string(gold));
  std::optional<mpq_class> x = Rational(a), y = Rational(g);
  if (x && y) {
    verdict.rule = "rational";
    verdict.score = *x == *y ? 1 : 0;
    verdict.reason =
        absl::StrCat(x->get_str(), verdict.score == 1 ? " equals " : " is not ", y->get_str());
    if (verdict.reason.size() > 300) verdict.reason = "compared as exact rationals";
    return verdict;
  }
  if (absl::EndsWith(a, "%") || absl::EndsWith(g, "%")) {
    a = std::string(absl::StripSuffix(a, "%"));
    g = std::string(absl::StripSuffix(g, "%"));
    x = Rational(a), y = Rational(g);
    if (x && y) {
      verdict.rule = "percent";
      verdict.score = *x == *y ? 1 : 0;
      verdict.reason = "compared without the percent sign";
      return verdict;
    }
  }
  verdict.rule = "string";
  verdict.score = !a.empty() && (a == g || absl::EqualsIgnoreCase(a, g)) ? 1 : 0;
  verdict.reason = verdict.score == 1 ? "the same after styling is taken away"
                                      : "not the same after styling is taken away";
  return verdict;
}

}  // namespace e3
