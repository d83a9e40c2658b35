#include "reward_service/trace/trace_statistics.h"

#include <algorithm>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_split.h"

namespace e3 {
namespace {

bool IsSpace(char c) { return absl::ascii_isspace(static_cast<unsigned char>(c)); }

// Sentences of `text`, without the white space and mark-up in front of them.
std::vector<absl::string_view> Sentences(absl::string_view text) {
  std::vector<absl::string_view> sentences;
  size_t begin = 0;
  auto add = [&](size_t end) {
    absl::string_view s = text.substr(begin, end - begin);
    while (!s.empty() && (IsSpace(s[0]) || absl::StrContains("*_#>-\"'(", s.substr(0, 1))))
      s.remove_prefix(1);
    for (absl::string_view tag : {"<think>", "</think>"}) {
      if (absl::StartsWith(s, tag)) s = absl::StripLeadingAsciiWhitespace(s.substr(tag.size()));
    }
    if (!s.empty()) sentences.push_back(s);
    begin = end;
  };
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\n') {
      add(i + 1);
    } else if ((text[i] == '.' || text[i] == '!' || text[i] == '?') && i + 1 < text.size() &&
               IsSpace(text[i + 1])) {
      add(i + 1);
    }
  }
  add(text.size());
  return sentences;
}

bool StartsWithPhrase(absl::string_view sentence, absl::string_view phrase) {
  if (phrase.empty() || !absl::StartsWith(sentence, phrase)) return false;
  return sentence.size() == phrase.size() ||
         !absl::ascii_isalpha(static_cast<unsigned char>(sentence[phrase.size()])) ||
         !absl::ascii_isalpha(static_cast<unsigned char>(phrase.back()));
}

// Equations "a op b … = c" of a segment, each packed without white space.
std::vector<std::string> Equations(absl::string_view segment) {
  std::vector<std::string> equations;
  auto is_expression = [](char c) {
    return absl::ascii_isdigit(static_cast<unsigned char>(c)) || IsSpace(c) ||
           absl::StrContains("+-*/().x", absl::string_view(&c, 1));
  };
  for (size_t at = segment.find('='); at != absl::string_view::npos;
       at = segment.find('=', at + 1)) {
    size_t begin = at;
    while (begin > 0 && is_expression(segment[begin - 1])) --begin;
    size_t end = at + 1;
    while (end < segment.size() && IsSpace(segment[end])) ++end;
    if (end < segment.size() && segment[end] == '-') ++end;
    size_t digits = end;
    while (end < segment.size() && absl::ascii_isdigit(static_cast<unsigned char>(segment[end])))
      ++end;
    std::string equation;
    bool has_operator = false, has_digit = false;
    for (char c : segment.substr(begin, end - begin)) {
      if (IsSpace(c)) continue;
      has_digit = has_digit || absl::ascii_isdigit(static_cast<unsigned char>(c));
      has_operator = has_operator || (has_digit && c != '=' &&
                                      absl::StrContains("+-*/x", absl::string_view(&c, 1)));
      equation.push_back(c);
    }
    if (end > digits && has_operator) equations.push_back(std::move(equation));
  }
  return equations;
}

}  // namespace

const std::vector<std::string>& DefaultVerificationPhrases() {
  static const auto* phrases = new std::vector<std::string>{
      "Wait",       "But wait", "Alternatively", "Is there another way", "But let me double",
      "But hold on"};
  return *phrases;
}

v1::TraceStatistics MeasureTrace(absl::string_view text, const std::vector<std::string>& phrases) {
  const std::vector<std::string>& wanted = phrases.empty() ? DefaultVerificationPhrases() : phrases;
  v1::TraceStatistics statistics;
  uint32_t verifications = 0, attempts = 0, equations = 0;
  std::set<std::string> unique;
  const std::vector<absl::string_view> sentences = Sentences(text);
  for (absl::string_view sentence : sentences) {
    verifications += std::any_of(wanted.begin(), wanted.end(), [&](const std::string& phrase) {
      return StartsWithPhrase(sentence, phrase);
    });
  }
  std::vector<absl::string_view> lines = absl::StrSplit(text, '\n', absl::SkipWhitespace());
  for (absl::string_view line : lines.size() > 1 ? lines : sentences) {
    std::vector<std::string> found = Equations(line);
    if (found.empty()) continue;
    ++attempts;
    equations += static_cast<uint32_t>(found.size());
    std::string key;
    for (const std::string& equation : found) key += equation + ";";
    unique.insert(std::move(key));
  }
  statistics.set_verifications(verifications);
  statistics.set_attempts(attempts);
  statistics.set_unique_attempts(static_cast<uint32_t>(unique.size()));
  statistics.set_equations(equations);
  statistics.set_repeating(EndsRepeating(text));
  statistics.set_characters(
      static_cast<uint32_t>(std::count_if(text.begin(), text.end(), [](char c) {
        return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
      })));
  return statistics;
}

bool EndsRepeating(absl::string_view text) {
  for (size_t unit = 1; unit <= 256; ++unit) {
    size_t length = std::max<size_t>(64, 4 * unit);
    if (text.size() < length) break;
    absl::string_view tail = text.substr(text.size() - length);
    if (tail.substr(unit) == tail.substr(0, length - unit)) return true;
  }
  return false;
}

}  // namespace e3
