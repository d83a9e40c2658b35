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
  if (i + 1 < text.size() && text[i] == '.' && IsDigit(text[i + 1])) {
    ++i;
    while (i < text.size() && IsDigit(text[i])) ++i;
  }
  if (i == digits || i >= text.size() || IsAlpha(text[i]) || text[i] == '/' || text[i] == '\\' ||
      text[i] == '^')
    return std::nullopt;
  return Box{start, begin, i};
}

// All complete boxes that are in no other complete box, in order; none when the last box is not
// closed.
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
  // The last box is cut off: no answer.
  for (const Open& group : open) {
    if (group.box && (complete.empty() || group.start > complete.back().start)) return {};
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

// "and" or "or" between two pieces of mathematics, and nothing else.
bool JoinsWords(absl::string_view gap) {
  absl::string_view word = absl::StripAsciiWhitespace(gap);
  if (!word.empty() && word[0] == ',') word = absl::StripAsciiWhitespace(word.substr(1));
  return word == "and" || word == "or";
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
  size_t open = 0;    // the opening sign
};

// The last mathematics between signs: $…$, $$…$$, \[…\], \(…\).
std::optional<Span> LastMath(absl::string_view text) {
  std::optional<Span> last;
  absl::string_view unclosed[4];  // signs that are known not to come again
  size_t unclosed_count = 0;
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
    const bool gone =
        std::find(unclosed, unclosed + unclosed_count, close) != unclosed + unclosed_count;
    size_t end = gone ? kNone : text.find(close, i + length);
    while (end != kNone && close[0] == '$' && end > 0 && text[end - 1] == '\\')
      end = text.find(close, end + 1);
    if (end == kNone && !gone && unclosed_count < 4) unclosed[unclosed_count++] = close;
    absl::string_view content = end == kNone ? "" : text.substr(i + length, end - i - length);
    if (end == kNone || (length == 1 && close == "$" &&
                         ((end + 1 < text.size() && IsDigit(text[end + 1])) ||
                          absl::EndsWith(absl::StripTrailingAsciiWhitespace(content), " and") ||
                          absl::StrContains(content, "\n\n") || ReadsAsProse(content)))) {
      // A dollar sign of money, which nothing closes.
      i += length;
      continue;
    }
    if (!absl::StripAsciiWhitespace(text.substr(i + length, end - i - length)).empty())
      last = Span{i + length, end, end + close.size(), i};
    i = end + close.size();
  }
  return last;
}

// The last number, with sign, separators, point, a simple fraction and percent: "-1,234.5", "3/4",
// "50%".
std::optional<Span> LastNumber(absl::string_view text) {
  while (true) {
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
    // An exponent, or a digit of a name (m^2, x1), is no number of its own.
    if (i > 1 && (text[i - 1] == '^' || text[i - 1] == '_' || IsAlpha(text[i - 1]))) {
      text = text.substr(0, i - 1);
      continue;
    }
    if (i > 0 && text[i - 1] == '.' && (i == 1 || !IsAlpha(text[i - 2]))) --i;
    if (i > 0 && text[i - 1] == '-' &&
        (i == 1 || !(IsDigit(text[i - 2]) || IsAlpha(text[i - 2]) || text[i - 2] == ')')))
      --i;
    return Span{i, end, end};
  }
}

// Past words that say nothing of the value: "the answer is therefore approximately …".
size_t AfterAdverbs(absl::string_view lower, size_t at) {
  for (bool more = true; more;) {
    more = false;
    while (at < lower.size() && (lower[at] == ' ' || lower[at] == '*')) ++at;
    for (absl::string_view word :
         {"therefore", "thus", "then", "approximately", "about", "exactly", "simply", "just",
          "roughly", "equal to", "given by", "option", "choice", "now", "also", "only"}) {
      if (absl::StartsWith(lower.substr(at), word) && at + word.size() < lower.size() &&
          lower[at + word.size()] == ' ') {
        at += word.size() + 1;
        more = true;
      }
    }
  }
  return at;
}

// The start of what follows the last "answer is", "answer:" or the like; npos without one.
size_t AfterPhrase(absl::string_view text) {
  const std::string lower = absl::AsciiStrToLower(text);
  const absl::string_view view = lower;
  // The last place of each word that was not looked at yet.
  constexpr absl::string_view kWords[] = {"answer", "option", "choice"};
  size_t places[] = {view.rfind(kWords[0]), view.rfind(kWords[1]), view.rfind(kWords[2])};
  for (int looked = 0; looked < 1000; ++looked) {
    int word_at = -1;
    for (int w = 0; w < 3; ++w) {
      if (places[w] != kNone && (word_at < 0 || places[w] > places[word_at])) word_at = w;
    }
    if (word_at < 0) break;
    const size_t at = places[word_at];
    places[word_at] = at == 0 ? kNone : view.rfind(kWords[word_at], at - 1);
    const bool is_answer = absl::StartsWith(view.substr(at), "answer");
    size_t i = at + 6;
    auto skip = [&] {
      while (i < lower.size() && (lower[i] == ' ' || lower[i] == '*' || lower[i] == '\n')) ++i;
    };
    skip();
    for (absl::string_view word :
         {"is", "would be", "must be", "should be", "will be", "equals", "to the problem is",
          "to the question is", "to this problem is"}) {
      if (!absl::StartsWith(view.substr(i), word) ||
          IsAlpha(i + word.size() < lower.size() ? lower[i + word.size()] : ' '))
        continue;
      i += word.size();
      skip();
      if (i < lower.size() && lower[i] == ':') ++i;
      return AfterAdverbs(view, i);
    }
    if (is_answer && i < lower.size() && (lower[i] == ':' || lower[i] == '=')) return i + 1;
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

bool ReadsAsProse(absl::string_view text) {
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
    static constexpr absl::string_view kShort[] = {"so", "to", "is", "in", "at",
                                                   "of", "by", "we", "it", "no"};
    if (std::find(std::begin(kShort), std::end(kShort), absl::AsciiStrToLower(run)) !=
        std::end(kShort))
      return true;
    if (run.size() >= 3 && braces == 0 &&
        std::find(std::begin(kNames), std::end(kNames), run) == std::end(kNames))
      return true;
  }
  return false;
}

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
  // What comes after the thinking is the answer, where there is something.
  constexpr absl::string_view kEndOfThought = "</think>";
  if (size_t thought = text.rfind(kEndOfThought); thought != kNone) {
    const size_t begin = thought + kEndOfThought.size();
    if (std::optional<Answer> answer = FindAnywhere(text.substr(begin))) {
      answer->end += begin;
      return answer;
    }
    text = text.substr(0, thought);
  }
  if (std::optional<Answer> boxed = FindBoxed(text)) return boxed;
  Answer answer;
  auto add_math = [&](absl::string_view part, size_t offset) {
    std::optional<Span> math = LastMath(part);
    if (!math) return;
    // $2$ and $3$: one answer.
    if (std::optional<Span> before = LastMath(part.substr(0, math->open));
        before && JoinsWords(part.substr(before->close, math->open - before->close))) {
      AddReading(absl::StrCat(part.substr(before->begin, before->end - before->begin), ", ",
                              part.substr(math->begin, math->end - math->begin)),
                 offset + math->close, &answer);
    }
    AddReading(part.substr(math->begin, math->end - math->begin), offset + math->close, &answer);
  };
  if (size_t hashes = text.rfind("####"); hashes != kNone) {
    size_t end = std::min(text.find('\n', hashes), text.size());
    AddReading(text.substr(hashes + 4, end - hashes - 4), end, &answer);
  }
  if (size_t begin = AfterPhrase(text); begin != kNone) {
    size_t end = SentenceEnd(text, begin);
    absl::string_view sentence = text.substr(begin, end - begin);
    for (absl::string_view reason :
         {" because", " since ", ", so ", ", which", " as ", ", not ", " of a ", " of the "}) {
      if (size_t cut = sentence.find(reason); cut != kNone) sentence = sentence.substr(0, cut);
    }
    AddReading(sentence, begin + sentence.size(), &answer);
    add_math(sentence, begin);
    if (std::optional<Span> number = LastNumber(sentence))
      AddReading(sentence.substr(number->begin, number->end - number->begin), begin + number->close,
                 &answer);
  }
  const absl::string_view whole = absl::StripAsciiWhitespace(text);
  const bool is_short = whole.size() <= 256 && !absl::StrContains(whole, "\n");
  if (is_short && !ReadsAsProse(whole)) AddReading(whole, text.size(), &answer);
  add_math(text, 0);
  // "The midpoint is (3, 4).", "The roots are 2 and 3.": what the last sentence says.
  absl::string_view trimmed = absl::StripTrailingAsciiWhitespace(text);
  if (!trimmed.empty() && trimmed.back() == '.') trimmed.remove_suffix(1);
  auto after_last = [&](absl::string_view sign) {
    const size_t at = trimmed.rfind(sign);
    return at == kNone ? 0 : at + 1;
  };
  const size_t sentence = std::max(after_last(". "), after_last("\n"));
  absl::string_view tail = trimmed.substr(sentence);
  if (tail.size() <= 512) {
    size_t after = kNone;
    for (absl::string_view verb : {" is ", " are ", " equals ", " be ", " get ", " have ", " has ",
                                   " at ", "So ", "so ", "Thus ", "Hence "}) {
      size_t at = tail.rfind(verb);
      if (at != kNone && (after == kNone || at + verb.size() > after)) after = at + verb.size();
    }
    if (after != kNone) {
      after = AfterAdverbs(absl::AsciiStrToLower(tail), after);
      if (!ReadsAsProse(tail.substr(std::min(after, tail.size()))))
        AddReading(tail.substr(after), text.size(), &answer);
    }
  }
  if (std::optional<Span> number = LastNumber(text))
    AddReading(text.substr(number->begin, number->end - number->begin), number->close, &answer);
  if (is_short) AddReading(whole, text.size(), &answer);
  if (answer.readings.empty()) return std::nullopt;
  return answer;
}

}  // namespace e3
