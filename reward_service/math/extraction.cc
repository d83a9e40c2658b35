#include "reward_service/math/extraction.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace e3 {
namespace {

constexpr size_t kNone = absl::string_view::npos;

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsAlpha(char c) { return absl::ascii_isalpha(static_cast<unsigned char>(c)); }
bool IsSpace(char c) { return absl::ascii_isspace(static_cast<unsigned char>(c)); }

struct Box {
  size_t start;       // of the command
  size_t begin, end;  // of the content
};

// Length of "\boxed" or "\fbox" at `at`; 0 for neither.
size_t BoxCommand(absl::string_view text, size_t at) {
  for (absl::string_view command : {"\\boxed", "\\fbox", "\\framebox"}) {
    if (absl::StartsWith(text.substr(at), command) &&
        (at + command.size() >= text.size() || !IsAlpha(text[at + command.size()])))
      return command.size();
  }
  return 0;
}

// \boxed 5 without braces: a number that something follows.
std::optional<Box> BareBox(absl::string_view text, size_t start, size_t at) {
  size_t i = at;
  while (i < text.size() && text[i] == ' ') ++i;
  const size_t begin = i;
  if (i < text.size() && text[i] == '-') ++i;
  const size_t digits = i;
  while (i < text.size() && IsDigit(text[i])) ++i;
  if (i == digits || i >= text.size() || IsAlpha(text[i]) || text[i] == '/' || text[i] == '\\' ||
      text[i] == '^')
    return std::nullopt;
  return Box{start, begin, i};
}

// All complete boxes that are in no other complete box, in order.
std::vector<Box> Boxes(absl::string_view text) {
  std::vector<Box> complete;
  size_t at = std::min({text.find("\\boxed"), text.find("\\fbox"), text.find("\\framebox")});
  if (at == kNone) return complete;
  struct Open {
    bool box;
    size_t start, begin;
  };
  std::vector<Open> open;
  for (; at < text.size(); ++at) {
    const char c = text[at];
    if (c == '\\') {
      size_t length = BoxCommand(text, at);
      if (length == 0) {
        ++at;  // an escaped brace is a character
        continue;
      }
      size_t brace = at + length;
      while (brace < text.size() && IsSpace(text[brace])) ++brace;
      if (brace < text.size() && text[brace] == '{') {
        open.push_back({true, at, brace + 1});
        at = brace;
      } else {
        if (std::optional<Box> bare = BareBox(text, at, at + length)) complete.push_back(*bare);
        at += length - 1;
      }
    } else if (c == '{') {
      open.push_back({false, at, at});
    } else if (c == '}' && !open.empty()) {
      Open group = open.back();
      open.pop_back();
      if (!group.box) continue;
      while (!complete.empty() && complete.back().start > group.start) complete.pop_back();
      complete.push_back({group.start, group.begin, at});
    }
  }
  return complete;
}

// Whether only "and", commas, labels and signs of mathematics stand between two boxes.
bool Joins(absl::string_view gap) {
  if (gap.size() > 48) return false;
  std::string rest = absl::StrReplaceAll(gap, {{"\\text", ""},
                                               {"\\quad", ""},
                                               {"\\qquad", ""},
                                               {"\\mbox", ""},
                                               {"and", ""},
                                               {"or", ""},
                                               {"\\(", ""},
                                               {"\\)", ""},
                                               {"\\,", ""},
                                               {"\\;", ""},
                                               {"\\ ", ""}});
  for (size_t i = 0; i < rest.size(); ++i) {
    const char c = rest[i];
    if (IsSpace(c) || absl::StrContains("$,;&{}*", absl::string_view(&c, 1))) continue;
    // x =, y=
    size_t k = i + 1;
    while (k < rest.size() && rest[k] == ' ') ++k;
    if (IsAlpha(c) && k < rest.size() && rest[k] == '=') {
      i = k;
      continue;
    }
    return false;
  }
  return true;
}

absl::string_view Trim(absl::string_view text) {
  text = absl::StripAsciiWhitespace(text);
  while (!text.empty() && absl::StrContains("*:=", text.substr(0, 1)))
    text = absl::StripLeadingAsciiWhitespace(text.substr(1));
  while (!text.empty() && absl::StrContains(".*,", text.substr(text.size() - 1)))
    text = absl::StripTrailingAsciiWhitespace(text.substr(0, text.size() - 1));
  return text;
}

// End of the sentence that begins at `begin`.
size_t SentenceEnd(absl::string_view text, size_t begin) {
  for (size_t i = begin; i < text.size(); ++i) {
    if (text[i] == '\n' && i > begin) return i;
    if (text[i] == '.' && (i + 1 == text.size() || IsSpace(text[i + 1]))) {
      // "4 p.m. today": an abbreviation goes on.
      if (i >= 3 && text[i - 2] == '.') continue;
      return i;
    }
  }
  return text.size();
}

struct Span {
  size_t begin, end;  // of the content
  size_t close;       // after the closing sign
};

// Whether words other than "and" and "or" stand in `text`, outside commands and braces.
bool IsProse(absl::string_view text) {
  int braces = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '{') ++braces;
    if (text[i] == '}') --braces;
    if (!IsAlpha(text[i])) continue;
    const size_t begin = i;
    while (i + 1 < text.size() && IsAlpha(text[i + 1])) ++i;
    absl::string_view run = text.substr(begin, i + 1 - begin);
    if (begin > 0 && text[begin - 1] == '\\') continue;
    static constexpr absl::string_view kNames[] = {"and", "sin",  "cos", "tan",
                                                   "log", "sqrt", "pi",  "exp"};
    static constexpr absl::string_view kShort[] = {"so", "to", "is", "in", "at", "of", "by", "we"};
    if (std::find(std::begin(kShort), std::end(kShort), run) != std::end(kShort)) return true;
    if (run.size() >= 3 && braces == 0 &&
        std::find(std::begin(kNames), std::end(kNames), run) == std::end(kNames))
      return true;
  }
  return false;
}

// The last mathematics between signs: $…$, $$…$$, \[…\], \(…\).
std::optional<Span> LastMath(absl::string_view text) {
  std::optional<Span> last;
  for (size_t i = 0; i < text.size();) {
    absl::string_view close;
    size_t length = 0;
    if (text[i] == '$') {
      length = i + 1 < text.size() && text[i + 1] == '$' ? 2 : 1;
      close = length == 2 ? "$$" : "$";
    } else if (text[i] == '\\' && i + 1 < text.size()) {
      if (text[i + 1] == '[' || text[i + 1] == '(') {
        length = 2;
        close = text[i + 1] == '[' ? "\\]" : "\\)";
      } else {
        i += 2;
        continue;
      }
    }
    if (length == 0) {
      ++i;
      continue;
    }
    size_t end = text.find(close, i + length);
    while (end != kNone && close[0] == '$' && end > 0 && text[end - 1] == '\\')
      end = text.find(close, end + 1);
    absl::string_view content = end == kNone ? "" : text.substr(i + length, end - i - length);
    if (end == kNone || (length == 1 && close == "$" &&
                         ((end + 1 < text.size() && IsDigit(text[end + 1])) ||
                          absl::EndsWith(absl::StripTrailingAsciiWhitespace(content), " and") ||
                          absl::StrContains(content, "\n\n") || IsProse(content)))) {
      // A dollar sign of money, which nothing closes.
      i += length;
      continue;
    }
    if (!absl::StripAsciiWhitespace(text.substr(i + length, end - i - length)).empty())
      last = Span{i + length, end, end + close.size()};
    i = end + close.size();
  }
  return last;
}

// The last number, with sign, separators, point, a simple fraction and percent: "-1,234.5", "3/4",
// "50%".
std::optional<Span> LastNumber(absl::string_view text) {
  size_t i = text.size();
  while (i > 0 && !IsDigit(text[i - 1])) --i;
  if (i == 0) return std::nullopt;
  const size_t end = i < text.size() && text[i] == '%' ? i + 1 : i;
  bool slash = false;
  while (i > 0) {
    const char c = text[i - 1];
    if (IsDigit(c)) {
      --i;
    } else if ((c == '.' || c == ',') && i > 1 && IsDigit(text[i - 2]) && i < text.size() &&
               IsDigit(text[i])) {
      --i;
    } else if (c == '/' && !slash && i > 1 && IsDigit(text[i - 2]) && IsDigit(text[i])) {
      slash = true;
      --i;
    } else {
      break;
    }
  }
  if (i > 0 && text[i - 1] == '.' && (i == 1 || !IsAlpha(text[i - 2]))) --i;
  if (i > 0 && text[i - 1] == '-' &&
      (i == 1 || !(IsDigit(text[i - 2]) || IsAlpha(text[i - 2]) || text[i - 2] == ')')))
    --i;
  return Span{i, end, end};
}

// The start of what follows the last "answer is", "answer:" or the like; npos without one.
size_t AfterPhrase(absl::string_view text) {
  std::string lower = absl::AsciiStrToLower(text);
  for (size_t at = lower.rfind("answer"); at != kNone;
       at = at == 0 ? kNone : lower.rfind("answer", at - 1)) {
    size_t i = at + 6;
    auto skip = [&] {
      while (i < lower.size() && (lower[i] == ' ' || lower[i] == '*' || lower[i] == '\n')) ++i;
    };
    skip();
    for (absl::string_view word :
         {"is", "would be", "must be", "should be", "will be", "equals", "to the problem is",
          "to the question is", "to this problem is"}) {
      if (absl::StartsWith(absl::string_view(lower).substr(i), word)) {
        i += word.size();
        skip();
        if (i < lower.size() && lower[i] == ':') ++i;
        for (absl::string_view more : {"therefore ", "thus ", "then "}) {
          if (absl::StartsWith(absl::string_view(lower).substr(i), more)) i += more.size();
        }
        return i;
      }
    }
    if (i < lower.size() && (lower[i] == ':' || lower[i] == '=')) return i + 1;
  }
  return kNone;
}

void AddReading(absl::string_view text, size_t end, Answer* answer) {
  std::string reading(Trim(text));
  if (reading.empty() || reading.size() > 4096) return;
  if (std::find(answer->readings.begin(), answer->readings.end(), reading) !=
      answer->readings.end())
    return;
  answer->readings.push_back(std::move(reading));
  answer->end = std::max(answer->end, end);
}

}  // namespace

std::optional<Answer> FindBoxed(absl::string_view text) {
  std::vector<Box> boxes = Boxes(text);
  if (boxes.empty()) return std::nullopt;
  const Box& last = boxes.back();
  Answer answer;
  answer.end = last.end + 1;
  answer.readings.emplace_back(text.substr(last.begin, last.end - last.begin));
  size_t first = boxes.size() - 1;
  while (first > 0 && Joins(text.substr(boxes[first - 1].end + 1,
                                        boxes[first].start - boxes[first - 1].end - 1)))
    --first;
  if (first + 1 < boxes.size() && boxes.size() - first <= 20) {
    std::string joined;
    for (size_t i = first; i < boxes.size(); ++i)
      absl::StrAppend(&joined, joined.empty() ? "" : ", ",
                      text.substr(boxes[i].begin, boxes[i].end - boxes[i].begin));
    answer.readings.push_back(std::move(joined));
  }
  return answer;
}

std::optional<Answer> FindAnywhere(absl::string_view text) {
  if (std::optional<Answer> boxed = FindBoxed(text)) return boxed;
  Answer answer;
  if (size_t hashes = text.rfind("####"); hashes != kNone) {
    size_t end = std::min(text.find('\n', hashes), text.size());
    AddReading(text.substr(hashes + 4, end - hashes - 4), end, &answer);
  }
  if (size_t begin = AfterPhrase(text); begin != kNone) {
    size_t end = SentenceEnd(text, begin);
    absl::string_view sentence = text.substr(begin, end - begin);
    for (absl::string_view reason : {" because", " since ", ", so ", ", which", " as "}) {
      if (size_t cut = sentence.find(reason); cut != kNone) sentence = sentence.substr(0, cut);
    }
    AddReading(sentence, begin + sentence.size(), &answer);
    if (std::optional<Span> math = LastMath(sentence))
      AddReading(sentence.substr(math->begin, math->end - math->begin), begin + math->close,
                 &answer);
    if (std::optional<Span> number = LastNumber(sentence))
      AddReading(sentence.substr(number->begin, number->end - number->begin), begin + number->close,
                 &answer);
  }
  const absl::string_view whole = absl::StripAsciiWhitespace(text);
  const bool is_short = whole.size() <= 256 && !absl::StrContains(whole, "\n");
  if (is_short && !IsProse(whole)) AddReading(whole, text.size(), &answer);
  if (std::optional<Span> math = LastMath(text))
    AddReading(text.substr(math->begin, math->end - math->begin), math->close, &answer);
  if (std::optional<Span> number = LastNumber(text))
    AddReading(text.substr(number->begin, number->end - number->begin), number->close, &answer);
  if (is_short) AddReading(whole, text.size(), &answer);
  if (answer.readings.empty()) return std::nullopt;
  return answer;
}

}  // namespace e3
