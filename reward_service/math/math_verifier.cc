#include "reward_service/math/math_verifier.h"

#include <flint/flint.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "reward_service/math/extraction.h"
#include "reward_service/math/parser.h"

namespace e3 {
namespace {

using math::Arena;
using math::Comparison;
using math::Kind;
using math::Node;
using math::Work;

// A whole number in plain digits, without leading zeros: most answers are.
bool IsPlainInteger(absl::string_view text) {
  if (text == "-0") return false;
  if (!text.empty() && text[0] == '-') text.remove_prefix(1);
  return !text.empty() && text.size() <= 18 && (text[0] != '0' || text.size() == 1) &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// "(E) 42", "E. 42": the place of the letter of a choice that stands in front; nullopt without one,
// and where another choice or a denial follows.
std::optional<size_t> LeadingChoice(absl::string_view text) {
  auto is_upper = [&](size_t k) {
    return absl::ascii_isupper(static_cast<unsigned char>(text[k]));
  };
  auto is_alpha = [&](size_t k) {
    return absl::ascii_isalpha(static_cast<unsigned char>(text[k]));
  };
  size_t i = std::min(text.find_first_not_of("$ "), text.size());
  for (absl::string_view prefix : {"\\text{", "\\textbf{", "\\mathrm{"}) {
    if (absl::StartsWith(text.substr(i), prefix)) {
      i += prefix.size();
      break;
    }
  }
  const bool bracket = i < text.size() && text[i] == '(';
  if (bracket) ++i;
  if (i + 1 >= text.size() || !is_upper(i)) return std::nullopt;
  const char after = text[i + 1];
  if (bracket ? after != ')' : (after != '.' && after != ':' && after != ')')) return std::nullopt;
  // "(A) or (B)", "A. B. C.": more than one choice is none.
  for (size_t k = i + 2; k < text.size(); ++k) {
    const bool begins = !is_alpha(k - 1) && text[k - 1] != '\\';
    const bool ends = k + 1 == text.size() || !is_alpha(k + 1);
    if (begins && ends && text[k] >= 'A' && text[k] <= 'H') return std::nullopt;
  }
  for (absl::string_view word : {" is", " not", " or ", " and ", " wrong"}) {
    if (absl::StrContains(text.substr(i + 1), word)) return std::nullopt;
  }
  return i;
}

// "yes" or "no" where a text begins with it and does not say the opposite: "No, there is none."
std::string Polarity(absl::string_view text) {
  std::string first;
  for (absl::string_view word : absl::StrSplit(
           absl::AsciiStrToLower(text), absl::ByAnyChar(" ,.;:!{}$*\\()~"), absl::SkipEmpty())) {
    if (word == "text" || word == "textbf" || word == "mathrm") continue;
    if (first.empty() && word != "yes" && word != "no") return "";
    if (first.empty()) first = std::string(word);
    if ((word == "yes" || word == "no") && word != first) return "";
  }
  return first;
}

bool IsChoice(const Node& node) {
  return (node.kind == Kind::kText || node.kind == Kind::kVariable) && node.name.size() == 1;
}

bool HasSeveral(const Node& node) {
  return (node.kind == Kind::kList || node.kind == Kind::kSet) && node.args.size() > 1;
}

struct Reading {
  std::string text;
  const Node* node = nullptr;
};

// Compares readings of answers, within the limits of one verdict.
class Comparer {
 public:
  explicit Comparer(const MathOptions& options) : options_(options), work_(options.limits) {}

  absl::StatusOr<const Node*> Parse(absl::string_view text, bool comma_groups = true) {
    return math::ParseAnswer(text, {comma_groups}, options_.limits, &arena_);
  }
  bool timed_out() const { return work_.timed_out(); }

  // As their trees say; where these differ, in the other ways in which answers are written.
  Comparison Compare(const Reading& gold, const Reading& answer) {
    Comparison result = Compare(*gold.node, *answer.node);
    for (auto way : {&Comparer::SplitCommas, &Comparer::SameChoice, &Comparer::BehindEquality,
                     &Comparer::BehindChoice, &Comparer::SamePolarity, &Comparer::GoldChoice}) {
      if (result.equal) break;
      (this->*way)(gold, answer, &result);
    }
    return result;
  }

 private:
  Comparison Compare(const Node& gold, const Node& answer) {
    return math::Compare(gold, answer, options_.comparison, &work_, &arena_);
  }

  // Against a part of the answer's text, when that is mathematics.
  void ComparePart(const Reading& gold, absl::string_view part, Comparison* result) {
    auto node = Parse(part);
    if (node.ok() && (*node)->kind != Kind::kText) *result = Compare(*gold.node, **node);
  }

  // "1,234" may be two numbers: in the gold answer, in the response's, or in both.
  void SplitCommas(const Reading& gold, const Reading& answer, Comparison* result) {
    for (int commas = 1; commas < 4 && !result->equal; ++commas) {
      const bool split_gold = (commas & 1) != 0, split_answer = (commas & 2) != 0;
      if ((split_gold && !math::HasCommaGroups(gold.text)) ||
          (split_answer && !math::HasCommaGroups(answer.text)))
        continue;
      if (split_gold != split_answer && !HasSeveral(split_gold ? *answer.node : *gold.node))
        continue;
      auto g = Parse(gold.text, !split_gold), a = Parse(answer.text, !split_answer);
      if (!g.ok() || !a.ok()) continue;
      if (Comparison again = Compare(**g, **a); again.equal) *result = std::move(again);
    }
  }

  // (E) 42 for E.
  void SameChoice(const Reading& gold, const Reading& answer, Comparison* result) {
    std::optional<size_t> letter = LeadingChoice(answer.text);
    if (IsChoice(*gold.node) && letter &&
        absl::EqualsIgnoreCase(answer.text.substr(*letter, 1), gold.node->name))
      *result = {true, "text", "the same choice"};
  }

  // "\int_0^1 2\,dx = 2", "\det A = 2": what stands left of the last sign of equality need not
  // be understood.
  void BehindEquality(const Reading& gold, const Reading& answer, Comparison* result) {
    if (answer.node->kind != Kind::kText || gold.node->kind == Kind::kText) return;
    if (size_t sign = answer.text.rfind('='); sign != std::string::npos)
      ComparePart(gold, absl::string_view(answer.text).substr(sign + 1), result);
  }

  // A choice in front of what it says: (B) 12 for 12.
  void BehindChoice(const Reading& gold, const Reading& answer, Comparison* result) {
    std::optional<size_t> letter = LeadingChoice(answer.text);
    if (!letter || IsChoice(*gold.node) || LeadingChoice(gold.text)) return;
    const size_t rest = answer.text.find_first_not_of(" .:)}\\~", *letter + 1);
    if (rest != std::string::npos)
      ComparePart(gold, absl::string_view(answer.text).substr(rest), result);
  }

  // Yes, and no, with what is said of them.
  void SamePolarity(const Reading& gold, const Reading& answer, Comparison* result) {
    std::string polarity = Polarity(gold.text);
    if (!polarity.empty() && polarity == Polarity(answer.text))
      *result = {true, "text", "the same word, " + polarity};
  }

  // The gold answer "(A) 5" is the choice, and what it says.
  void GoldChoice(const Reading& gold, const Reading& answer, Comparison* result) {
    std::optional<size_t> letter = LeadingChoice(gold.text);
    if (!letter || gold.text.size() <= 4) return;
    const size_t rest =
        std::min(gold.text.find_first_not_of(" .:)}", *letter + 1), gold.text.size());
    for (const std::string& part : {gold.text.substr(*letter, 1), gold.text.substr(rest)}) {
      if (result->equal || absl::StripAsciiWhitespace(part).empty()) continue;
      if (auto g = Parse(part); g.ok()) *result = Compare(**g, *answer.node);
    }
  }

  const MathOptions& options_;
  Work work_;
  Arena arena_;
};

// FLINT keeps caches for each thread; this gives them back when the thread ends.
struct FlintThread {
  ~FlintThread() { flint_cleanup(); }
};

std::string Shortened(absl::string_view text) {
  constexpr size_t kMax = 512;
  std::string out(text.substr(0, kMax));
  // No half characters at the end.
  while (text.size() > kMax && !out.empty() &&
         (static_cast<unsigned char>(out.back()) & 0xC0) == 0x80)
    out.pop_back();
  if (text.size() > kMax && !out.empty() && static_cast<unsigned char>(out.back()) >= 0xC0)
    out.pop_back();
  if (text.size() > kMax) out += "…";
  return out;
}

}  // namespace

// Whether a gold answer has to be looked for in `bare`: a sentence, a worked solution.
bool MathVerifier::IsProse(absl::string_view bare) const {
  if (bare.size() <= 256 && !absl::StrContains(bare, "####") && !absl::StrContains(bare, "\n") &&
      !ReadsAsProse(bare))
    return false;
  // A few words are an answer themselves: "two lines".
  if (bare.size() > 40 || bare.find_first_of("0123456789") != absl::string_view::npos) return true;
  Arena arena;
  auto parsed = math::ParseAnswer(bare, {}, options_.limits, &arena);
  return !parsed.ok() || (*parsed)->kind != Kind::kText;
}

MathVerifier::MathVerifier(absl::string_view gold, MathOptions options)
    : gold_(gold), options_(std::move(options)) {
  if (std::optional<Answer> boxed = FindBoxed(gold)) {
    // Several boxes in a gold answer are all of it.
    gold_readings_ = {boxed->readings.back()};
    return;
  }
  absl::string_view bare = absl::StripAsciiWhitespace(gold);
  if (options_.extract == Extract::kAny && IsProse(bare)) {
    if (std::optional<Answer> answer = FindAnywhere(gold)) gold_readings_ = answer->readings;
  }
  if (gold_readings_.empty()) gold_readings_ = {std::string(bare)};
}

std::optional<Answer> MathVerifier::FindAnswer(absl::string_view text) const {
  return options_.extract == Extract::kBoxed ? FindBoxed(text) : FindAnywhere(text);
}

std::string MathVerifier::Key() const {
  return absl::StrCat(gold_.size(), ":", gold_, static_cast<int>(options_.extract), " ",
                      options_.comparison.precision.value_or(-1), " ", options_.limits.characters,
                      " ", options_.limits.depth, " ", options_.limits.digits, " ",
                      options_.limits.bits);
}

absl::StatusOr<Verdict> MathVerifier::Judge(const Answer& answer) const {
  static thread_local FlintThread flint_thread;
  Verdict verdict;
  verdict.extracted = Shortened(answer.readings[0]);
  const std::string& first = answer.readings[0];
  const std::string& gold_text = gold_readings_[0];
  if (absl::StripAsciiWhitespace(first).empty()) {
    verdict.rule = "no-answer";
    verdict.reason = "the answer is empty";
    return verdict;
  }
  if (IsPlainInteger(first) && IsPlainInteger(gold_text)) {
    verdict.score = first == gold_text ? 1 : 0;
    verdict.rule = "rational";
    verdict.reason =
        verdict.score == 1 ? "the same whole number" : absl::StrCat(first, " is not ", gold_text);
    return verdict;
  }
  if (first == gold_text && first.size() <= static_cast<size_t>(options_.limits.characters)) {
    verdict.score = 1;
    verdict.rule = "identical";
    verdict.reason = "the same text";
    return verdict;
  }

  Comparer comparer(options_);
  Reading gold;
  for (const std::string& text : gold_readings_) {
    auto parsed = comparer.Parse(text);
    if (!parsed.ok()) continue;
    const bool words = (*parsed)->kind == Kind::kText;
    if (gold.node == nullptr || (!words && gold.node->kind == Kind::kText)) gold = {text, *parsed};
    if (!words) break;
  }
  if (gold.node == nullptr)
    return absl::ResourceExhaustedError("the gold answer is beyond the limits");

  const bool boxed = options_.extract == Extract::kBoxed;
  Comparison result;
  bool decided = false;
  for (size_t i = 0; i < answer.readings.size(); ++i) {
    const std::string& text = answer.readings[i];
    auto parsed = comparer.Parse(text);
    if (!parsed.ok()) {
      if (!decided) result = {false, "limit", std::string(parsed.status().message())};
      continue;
    }
    // The joined boxes are read where the gold answer has several values.
    if (i > 0 && decided && boxed && !HasSeveral(*gold.node) && gold.node->kind != Kind::kSequence)
      break;
    // Words wait for a reading that is mathematics, where the gold answer is.
    if (!boxed && (*parsed)->kind == Kind::kText && gold.node->kind != Kind::kText &&
        !IsChoice(*gold.node) && i + 1 < answer.readings.size())
      continue;
    Comparison comparison = comparer.Compare(gold, {text, *parsed});
    if (comparer.timed_out())
      return absl::DeadlineExceededError("no verdict within the time of a request");
    if (!decided || comparison.equal) {
      result = std::move(comparison);
      verdict.extracted = Shortened(text);
    }
    decided = true;
    if (result.equal || (!boxed && !HasSeveral(*gold.node))) break;
  }
  verdict.score = result.equal ? 1 : 0;
  verdict.rule = result.rule;
  verdict.reason = result.reason;
  return verdict;
}

}  // namespace e3
