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

// "(E) 42", "E. 42" against the choice E: the letter in front.
std::string LeadingChoice(absl::string_view text) {
  while (!text.empty() && (text[0] == '$' || text[0] == ' ')) text.remove_prefix(1);
  size_t i = 0;
  for (absl::string_view prefix : {"\\text{", "\\textbf{", "\\mathrm{"}) {
    if (absl::StartsWith(text, prefix)) i = prefix.size();
  }
  const bool bracket = i < text.size() && text[i] == '(';
  if (bracket) ++i;
  if (i + 1 >= text.size() || !absl::ascii_isupper(static_cast<unsigned char>(text[i]))) return "";
  const char after = text[i + 1];
  if (bracket ? after != ')' : (after != '.' && after != ':' && after != ')')) return "";
  // "(A) or (B)", "A. B. C.": more than one choice is none.
  for (size_t k = i + 2; k < text.size(); ++k) {
    const bool begins =
        !absl::ascii_isalpha(static_cast<unsigned char>(text[k - 1])) && text[k - 1] != '\\';
    const bool ends =
        k + 1 == text.size() || !absl::ascii_isalpha(static_cast<unsigned char>(text[k + 1]));
    if (begins && ends && text[k] >= 'A' && text[k] <= 'H') return "";
  }
  const absl::string_view rest = text.substr(i + 1);
  for (absl::string_view word : {" is", " not", " or ", " and ", " wrong"}) {
    if (absl::StrContains(rest, word)) return "";
  }
  return std::string(1, text[i]);
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

MathVerifier::MathVerifier(absl::string_view gold, MathOptions options)
    : gold_(gold), options_(std::move(options)) {
  if (std::optional<Answer> boxed = FindBoxed(gold)) {
    // Several boxes in a gold answer are all of it.
    gold_readings_ = {boxed->readings.back()};
    return;
  }
  absl::string_view bare = absl::StripAsciiWhitespace(gold);
  if (options_.extract == Extract::kAny) {
    Arena arena;
    auto parsed = math::ParseAnswer(bare, {}, options_.limits, &arena);
    const bool words = parsed.ok() && (*parsed)->kind == Kind::kText && bare.size() <= 40 &&
                       bare.find_first_of("0123456789") == absl::string_view::npos;
    const bool prose = bare.size() > 256 || absl::StrContains(bare, "####") ||
                       absl::StrContains(bare, "\n") || ReadsAsProse(bare);
    if (prose && !words) {
      if (std::optional<Answer> answer = FindAnywhere(gold)) gold_readings_ = answer->readings;
    }
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

  Arena arena;
  Work work(options_.limits);
  const Node* gold = nullptr;
  std::string gold_reading;
  for (const std::string& reading : gold_readings_) {
    auto parsed = math::ParseAnswer(reading, {}, options_.limits, &arena);
    if (!parsed.ok()) continue;
    const bool text = (*parsed)->kind == Kind::kText;
    if (gold == nullptr || (!text && gold->kind == Kind::kText)) {
      gold = *parsed;
      gold_reading = reading;
    }
    if (!text) break;
  }
  if (gold == nullptr) return absl::ResourceExhaustedError("the gold answer is beyond the limits");

  Comparison result;
  bool decided = false;
  for (size_t i = 0; i < answer.readings.size(); ++i) {
    const std::string& reading = answer.readings[i];
    auto parsed = math::ParseAnswer(reading, {}, options_.limits, &arena);
    if (!parsed.ok()) {
      if (!decided) result = {false, "limit", std::string(parsed.status().message())};
      continue;
    }
    const bool boxed = options_.extract == Extract::kBoxed;
    // The joined boxes are read where the gold answer has several values.
    if (i > 0 && decided && boxed && !HasSeveral(*gold) && gold->kind != Kind::kSequence) break;
    if ((*parsed)->kind == Kind::kText && gold->kind != Kind::kText && !IsChoice(*gold) &&
        i + 1 < answer.readings.size() && !boxed)
      continue;
    Comparison comparison = math::Compare(*gold, **parsed, options_.comparison, &work, &arena);
    // "1,234" may be two numbers: in the gold answer, in the response's, or in both.
    for (int commas = 1; commas < 4 && !comparison.equal; ++commas) {
      const bool split_gold = (commas & 1) != 0, split_answer = (commas & 2) != 0;
      if ((split_gold && !math::HasCommaGroups(gold_reading)) ||
          (split_answer && !math::HasCommaGroups(reading)))
        continue;
      if (split_gold != split_answer && !(split_gold ? HasSeveral(**parsed) : HasSeveral(*gold)))
        continue;
      auto g = math::ParseAnswer(gold_reading, {!split_gold}, options_.limits, &arena);
      auto a = math::ParseAnswer(reading, {!split_answer}, options_.limits, &arena);
      if (g.ok() && a.ok()) {
        Comparison again = math::Compare(**g, **a, options_.comparison, &work, &arena);
        if (again.equal) comparison = again;
      }
    }
    if (!comparison.equal && IsChoice(*gold)) {
      std::string choice = LeadingChoice(reading);
      if (!choice.empty() && absl::EqualsIgnoreCase(choice, gold->name))
        comparison = {true, "text", "the same choice"};
    }
    // "\\int_0^1 2\\,dx = 2", "\\det A = 2": what stands left of the last sign of equality need not
    // be understood.
    if (!comparison.equal && (*parsed)->kind == Kind::kText && gold->kind != Kind::kText) {
      if (size_t sign = reading.rfind('='); sign != std::string::npos) {
        auto a = math::ParseAnswer(reading.substr(sign + 1), {}, options_.limits, &arena);
        if (a.ok() && (*a)->kind != Kind::kText)
          comparison = math::Compare(*gold, **a, options_.comparison, &work, &arena);
      }
    }
    // A choice in front of what it says: (B) 12 for 12.
    if (!comparison.equal && !IsChoice(*gold) && !LeadingChoice(reading).empty() &&
        LeadingChoice(gold_reading).empty()) {
      const size_t letter = reading.find(LeadingChoice(reading));
      const size_t rest = reading.find_first_not_of(" .:)}\\~", letter + 1);
      if (rest != std::string::npos) {
        auto a = math::ParseAnswer(reading.substr(rest), {}, options_.limits, &arena);
        if (a.ok() && (*a)->kind != Kind::kText)
          comparison = math::Compare(*gold, **a, options_.comparison, &work, &arena);
      }
    }
    if (std::string polarity = Polarity(gold_reading);
        !comparison.equal && !polarity.empty() && polarity == Polarity(reading))
      comparison = {true, "text", "the same word, " + polarity};
    // The gold answer "(A) 5" is the choice, and what it says.
    if (std::string choice = LeadingChoice(gold_reading);
        !comparison.equal && !choice.empty() && gold_reading.size() > 4) {
      const size_t at = gold_reading.find(choice) + 1;
      std::string rest =
          gold_reading.substr(gold_reading.find_first_not_of(" .:)}", at) == std::string::npos
                                  ? gold_reading.size()
                                  : gold_reading.find_first_not_of(" .:)}", at));
      for (const std::string& part : {choice, rest}) {
        auto g = math::ParseAnswer(part, {}, options_.limits, &arena);
        if (!g.ok() || comparison.equal || absl::StripAsciiWhitespace(part).empty()) continue;
        comparison = math::Compare(**g, **parsed, options_.comparison, &work, &arena);
      }
    }
    if (work.timed_out())
      return absl::DeadlineExceededError("no verdict within the time of a request");
    if (!decided || comparison.equal) {
      result = std::move(comparison);
      verdict.extracted = Shortened(reading);
    }
    decided = true;
    if (result.equal || (!boxed && !HasSeveral(*gold))) break;
  }
  verdict.score = result.equal ? 1 : 0;
  verdict.rule = result.rule;
  verdict.reason = result.reason;
  return verdict;
}

}  // namespace e3
