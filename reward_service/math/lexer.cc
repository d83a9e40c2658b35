#include "reward_service/math/lexer.h"

#include <algorithm>
#include <cstdlib>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "reward_service/math/names.h"
#include "reward_service/math/units.h"
#include "reward_service/math/utf8.h"

namespace e3::math {
namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsAlpha(char c) { return absl::ascii_isalpha(static_cast<unsigned char>(c)); }
bool IsSpace(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

class Lexer {
 public:
  Lexer(absl::string_view text, const LexerOptions& options, const Limits& limits)
      : text_(text), options_(options), limits_(limits) {}

  absl::StatusOr<std::vector<Token>> Run() {
    if (static_cast<int64_t>(text_.size()) > limits_.characters) {
      return absl::InvalidArgumentError(absl::StrCat(
          "an answer of ", text_.size(), " characters; the limit is ", limits_.characters));
    }
    if (absl::Status s = ToAscii(); !s.ok()) return s;
    single_dollar_ = std::count(ascii_.begin(), ascii_.end(), '$') ==
                     1 + static_cast<int64_t>(CountEscapedDollars());
    if (absl::Status s = Scan(0, ascii_.size(), 0); !s.ok()) return s;
    Add(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  absl::Status Fail(absl::string_view what, size_t at) const {
    return absl::InvalidArgumentError(absl::StrCat(what, " at character ", at + 1));
  }

  size_t CountEscapedDollars() const {
    size_t count = 0;
    for (size_t at = ascii_.find("\\$"); at != std::string::npos; at = ascii_.find("\\$", at + 2))
      ++count;
    return count;
  }

  // Writes every character of Unicode that has a meaning in ASCII; others become a letter command
  // of their own (\uXXXX), which equals only itself.
  absl::Status ToAscii() {
    bool plain =
        std::all_of(text_.begin(), text_.end(), [](char c) { return c >= 0x20 && c != 0x7F; });
    if (plain) {
      ascii_ = std::string(text_);
      return absl::OkStatus();
    }
    for (size_t i = 0; i < text_.size();) {
      uint32_t code = 0;
      size_t length = 0;
      if (!DecodeUtf8(text_, i, &code, &length)) return Fail("not UTF-8", i);
      if (code < 0x80) {
        if (code < 0x20 && !IsSpace(static_cast<char>(code))) return Fail("a control character", i);
        if (code == 0x7F) return Fail("a control character", i);
        ascii_.push_back(static_cast<char>(code));
      } else if (code >= 0xFF01 && code <= 0xFF5E) {  // full-width ASCII
        ascii_.push_back(static_cast<char>(code - 0xFF01 + 0x21));
      } else if (code >= 0x1D7CE && code <= 0x1D7FF) {  // mathematical digits
        ascii_.push_back(static_cast<char>('0' + (code - 0x1D7CE) % 10));
      } else {
        if (const char* replacement = InLatex(code)) {
          ascii_ += replacement;
        } else {
          absl::StrAppend(&ascii_, "\\U", absl::Hex(code, absl::kZeroPad5), " ");
        }
      }
      i += length;
    }
    return absl::OkStatus();
  }

  Token& Add(TokenKind kind, absl::string_view text) {
    Token& token = tokens_.emplace_back();
    token.kind = kind;
    token.text = std::string(text);
    token.space = space_;
    token.position = at_;
    space_ = false;
    return token;
  }

  char At(size_t i) const { return i < end_ ? ascii_[i] : '\0'; }

  // Index after the brace that closes the one at `open`; npos without one.
  size_t EndOfGroup(size_t open) const {
    int depth = 0;
    for (size_t i = open; i < end_; ++i) {
      if (ascii_[i] == '\\') {
        ++i;
      } else if (ascii_[i] == '{') {
        ++depth;
      } else if (ascii_[i] == '}' && --depth == 0) {
        return i + 1;
      }
    }
    return std::string::npos;
  }

  size_t SkipSpaces(size_t i) const {
    while (i < end_ && IsSpace(ascii_[i])) ++i;
    return i;
  }

  absl::Status Scan(size_t begin, size_t end, int depth) {
    if (depth > 8) return Fail("styling nested too deeply", begin);
    const size_t outer_end = end_;
    end_ = end;
    for (at_ = begin; at_ < end_;) {
      const char c = ascii_[at_];
      if (static_cast<int64_t>(tokens_.size()) > limits_.nodes)
        return Fail("too many symbols", at_);
      if (IsSpace(c) || c == '~') {
        space_ = true;
        ++at_;
      } else if (IsDigit(c) || (c == '.' && IsDigit(At(at_ + 1)))) {
        if (absl::Status s = Number(); !s.ok()) return s;
      } else if (IsAlpha(c)) {
        Letters();
      } else if (c == '\\') {
        if (absl::Status s = Command(depth); !s.ok()) return s;
      } else if (c == '$') {
        if (single_dollar_ && IsDigit(At(SkipSpaces(at_ + 1)))) Add(TokenKind::kCommand, "$");
        ++at_;
      } else if (c == '{' && At(at_ + 2) == '}' &&
                 absl::StrContains(",:;=+-<>", absl::string_view(&ascii_[at_ + 1], 1))) {
        Add(TokenKind::kSymbol,
            absl::string_view(&ascii_[at_ + 1], 1));  // {:} only spaces the sign
        at_ += 3;
      } else if (c == '.') {
        if (At(at_ + 1) == '.' && At(at_ + 2) == '.') {
          Add(TokenKind::kCommand, "ldots");
          at_ += 3;
        } else {
          ++at_;  // the end of a sentence
        }
      } else if (c == '*' && At(at_ + 1) == '*') {
        Add(TokenKind::kSymbol, "^");
        at_ += 2;
      } else if ((c == '<' || c == '>' || c == '!') && At(at_ + 1) == '=') {
        Add(TokenKind::kCommand, c == '<' ? "le" : c == '>' ? "ge" : "ne");
        at_ += 2;
      } else if (c == '"' || c == '`' || c == '?') {
        ++at_;
      } else {
        if (c == '(' || c == '[') ++brackets_;
        if (c == ')' || c == ']') --brackets_;
        Add(TokenKind::kSymbol, absl::string_view(&c, 1));
        ++at_;
      }
    }
    end_ = outer_end;
    return absl::OkStatus();
  }

  // Length of a thousands separator at `i` that has exactly three digits after it; 0 for none.
  size_t Separator(size_t i) const {
    size_t length = 0;
    absl::string_view rest = absl::string_view(ascii_).substr(i, end_ - i);
    for (absl::string_view s : {"{,}", ",\\!", "\\,", "\\ ", "{\\,}", "\\!", "{ }", ",\\,"}) {
      if (absl::StartsWith(rest, s)) length = s.size();
    }
    if (length == 0 && !rest.empty()) {
      if (rest[0] == ',' && options_.comma_groups && brackets_ <= 0) length = 1;
      if (rest[0] == ' ' || rest[0] == '~') length = 1;
    }
    if (length == 0) return 0;
    for (size_t k = 0; k < 3; ++k) {
      if (!IsDigit(At(i + length + k))) return 0;
    }
    return IsDigit(At(i + length + 3)) ? 0 : length;
  }

  absl::Status Number() {
    const size_t begin = at_;
    size_t i = at_;
    std::string digits, fraction, exponent;
    bool point = false;
    while (IsDigit(At(i))) digits.push_back(ascii_[i++]);
    if (!digits.empty() && digits.size() <= 3 && digits[0] != '0') {
      absl::string_view separator;
      while (size_t length = Separator(i)) {
        absl::string_view s = absl::string_view(ascii_).substr(i, length);
        if (!separator.empty() && s != separator) break;
        separator = s;
        digits.append(ascii_, i + length, 3);
        i += length + 3;
      }
    }
    if (absl::StartsWith(absl::string_view(ascii_).substr(i, end_ - i), "{,}") &&
        IsDigit(At(i + 3))) {
      point = true;  // a decimal comma
      i += 3;
    } else if (At(i) == '.' && IsDigit(At(i + 1))) {
      point = true;
      ++i;
    } else if (At(i) == '.') {
      absl::string_view rest = absl::string_view(ascii_).substr(i + 1, end_ - i - 1);
      for (absl::string_view mark : {"\\overline", "\\bar", "\\dot", "("})
        point = point || absl::StartsWith(rest, mark);
      if (point) ++i;
    }
    if (point) {
      while (true) {
        while (IsDigit(At(i))) fraction.push_back(ascii_[i++]);
        // 3.141\,592: groups after the point.
        if (fraction.size() >= 3 && fraction.size() % 3 == 0 && At(i) == '\\' && At(i + 1) == ',' &&
            IsDigit(At(i + 2))) {
          i += 2;
        } else {
          break;
        }
      }
    }
    if (At(i) == 'e' || At(i) == 'E') {
      size_t j = i + 1;
      if (At(j) == '+' || At(j) == '-') ++j;
      size_t k = j;
      while (IsDigit(At(k))) ++k;
      if (k > j && k - j <= 9 && !IsAlpha(At(k))) {
        exponent = ascii_.substr(i + 1, k - i - 1);
        if (exponent[0] == '+') exponent.erase(0, 1);
        i = k;
      }
    }
    total_digits_ += static_cast<int64_t>(digits.size() + fraction.size());
    if (!exponent.empty()) total_digits_ += std::abs(std::stoll(exponent));
    if (total_digits_ > 2 * limits_.digits) return Fail("too many digits in all", begin);
    if (static_cast<int64_t>(digits.size() + fraction.size()) > limits_.digits) {
      return Fail(absl::StrCat("a number of ", digits.size() + fraction.size(),
                               " digits; the limit is ", limits_.digits, ","),
                  begin);
    }
    Token& token = Add(TokenKind::kNumber, digits);
    token.fraction = std::move(fraction);
    token.exponent = std::move(exponent);
    token.point = point;
    at_ = i;
    return absl::OkStatus();
  }

  void Letters() {
    size_t i = at_;
    while (IsAlpha(At(i))) ++i;
    absl::string_view run = absl::string_view(ascii_).substr(at_, i - at_);
    if ((run == "p" || run == "a") &&
        absl::StartsWith(absl::string_view(ascii_).substr(i, end_ - i), ".m")) {
      Add(TokenKind::kText, run == "p" ? "pm" : "am");
      i += 2;
    } else if (size_t unit = PlainRate(i); unit > 0) {
      Add(TokenKind::kText, absl::string_view(ascii_).substr(at_, unit - at_));
      i = unit;
    } else if (run == "x" && AfterNumber() && PowerOfTen(i)) {
      Add(TokenKind::kSymbol, "*");  // 3 x 10^8
    } else if (run.size() == 1) {
      Add(TokenKind::kLetter, run);
    } else if (PlainNames().contains(run)) {
      AddCommand(run);
    } else if (run == "and" || run == "or" || run == "to") {
      Add(TokenKind::kText, run);
    } else if (IsWord(run)) {
      Add(TokenKind::kWord, run);
    } else {
      size_t k = 0;
      // A function's name at the end of a run: "xsin", "2cosx" begins with one.
      for (absl::string_view name : {"sin", "cos", "tan", "log", "ln", "sqrt"}) {
        if (absl::StartsWith(run, name)) {
          Add(TokenKind::kCommand, name);
          k = name.size();
        }
      }
      for (; k < run.size(); ++k) Add(TokenKind::kLetter, run.substr(k, 1));
    }
    at_ = i;
  }

  bool AfterNumber() const { return !tokens_.empty() && tokens_.back().kind == TokenKind::kNumber; }

  bool PowerOfTen(size_t i) const {
    i = SkipSpaces(i);
    return At(i) == '1' && At(i + 1) == '0' && At(i + 2) == '^';
  }

  // End of "m/s" or "m^2" behind a number and a space, whose letters end at `i`; 0 for others.
  size_t PlainRate(size_t i) const {
    if (!AfterNumber() || !space_) return 0;
    absl::string_view run = absl::string_view(ascii_).substr(at_, i - at_);
    if (FindUnit(run) == nullptr) return 0;
    if (At(i) == '/') {
      size_t k = i + 1;
      while (IsAlpha(At(k))) ++k;
      return FindUnit(absl::string_view(ascii_).substr(i + 1, k - i - 1)) != nullptr ? k : 0;
    }
    if (run != "m") return 0;
    absl::string_view rest = absl::string_view(ascii_).substr(i, end_ - i);
    for (absl::string_view power : {"^{2}", "^{3}", "^2", "^3", "2", "3"}) {
      if (absl::StartsWith(rest, power) && !IsDigit(At(i + power.size())) &&
          !IsAlpha(At(i + power.size())))
        return i + power.size();
    }
    return 0;
  }

  // Words and units stay whole; short runs of letters are products: xy, abc, mn.
  bool IsWord(absl::string_view run) const {
    const bool after_number =
        !tokens_.empty() && (tokens_.back().kind == TokenKind::kNumber ||
                             tokens_.back().text == "}" || tokens_.back().text == "$");
    if (FindUnit(run) != nullptr && (after_number || run.size() > 2)) return true;
    if (std::all_of(run.begin(), run.end(),
                    [](char c) { return absl::ascii_isupper(static_cast<unsigned char>(c)); }))
      return true;  // AB, LQSX: names
    if (run.size() >= 4) {
      for (absl::string_view name : {"sin", "cos", "tan", "log", "sqrt"}) {
        if (absl::StartsWith(run, name) && run.size() == name.size() + 1) return false;
      }
      return run != "abcd" && run != "wxyz";
    }
    if (run.size() == 3) {
      bool vowel = run.find_first_of("aeiouyAEIOUY") != absl::string_view::npos;
      bool consecutive = run[1] == run[0] + 1 && run[2] == run[1] + 1;
      return vowel && !consecutive && run != "xyz" &&
             absl::ascii_islower(static_cast<unsigned char>(run[1]));
    }
    static const auto* two = new absl::flat_hash_set<absl::string_view>{
        "sq", "cu", "no", "No", "or", "to", "is", "of", "in", "at", "am", "pm",
        "by", "or", "an", "it", "if", "on", "we", "so", "as", "be", "do"};
    return two->contains(run);
  }

  void AddCommand(absl::string_view name) {
    auto it = CommandSynonyms().find(name);
    absl::string_view canonical = it == CommandSynonyms().end() ? name : it->second;
    if (canonical.size() == 1 && absl::StrContains("<>=*/|[]():%'", canonical)) {
      if (canonical == "[" || canonical == "(") ++brackets_;
      if (canonical == "]" || canonical == ")") --brackets_;
      Add(TokenKind::kSymbol, canonical);
    } else if (canonical == "and" || canonical == "or" || canonical == "to") {
      Add(TokenKind::kText, canonical);
    } else {
      if (canonical == "{") ++brackets_;
      if (canonical == "}") --brackets_;
      Add(TokenKind::kCommand, canonical);
    }
  }

  absl::Status Command(int depth) {
    const size_t begin = at_;
    size_t i = at_ + 1;
    if (IsAlpha(At(i))) {
      while (IsAlpha(At(i))) ++i;
      // \U12345: a character of its own.
      if (At(begin + 1) == 'U' && i == begin + 2)
        while (absl::ascii_isxdigit(static_cast<unsigned char>(At(i)))) ++i;
    } else if (i < end_) {
      ++i;
    }
    absl::string_view name = absl::string_view(ascii_).substr(begin + 1, i - begin - 1);
    if (name.empty()) {
      at_ = i;
      return absl::OkStatus();
    }
    if (Ignored().contains(name)) {
      if (name == "left" || name == "right") {
        size_t next = SkipSpaces(i);
        if (At(next) == '.') i = next + 1;  // \left. draws nothing
      } else if (!IsAlpha(name[0]) && name != "!" && name != "-") {
        space_ = true;
      }
      at_ = i;
      return absl::OkStatus();
    }
    size_t group = SkipSpaces(i);
    if (IgnoredWithArgument().contains(name)) {
      if (At(group) == '{') {
        size_t close = EndOfGroup(group);
        if (close == std::string::npos) return Fail("'{' without '}'", group);
        at_ = close;
      } else {
        at_ = group < end_ ? group + 1 : group;
      }
      return absl::OkStatus();
    }
    if (name == "begin" || name == "end" || name == "mathbb") {
      if (At(group) != '{') {
        if (name == "mathbb" && IsAlpha(At(group))) {
          Add(TokenKind::kCommand, At(group) == 'R' ? std::string("reals")
                                                    : absl::StrCat("bb", ascii_.substr(group, 1)));
          at_ = group + 1;
          return absl::OkStatus();
        }
        return Fail(absl::StrCat("\\", name, " without a name"), begin);
      }
      size_t close = EndOfGroup(group);
      if (close == std::string::npos) return Fail("'{' without '}'", group);
      std::string argument = ascii_.substr(group + 1, close - group - 2);
      if (name == "mathbb") {
        Add(TokenKind::kCommand, argument == "R" ? std::string("reals") : "bb" + argument);
      } else {
        Add(TokenKind::kCommand, absl::StrCat(name, ":", argument));
        brackets_ += name == "begin" ? 1 : -1;
      }
      at_ = close;
      return absl::OkStatus();
    }
    const bool text = Texts().contains(name);
    if (text || Styles().contains(name)) {
      if (At(group) != '{') {
        at_ = i;
        return absl::OkStatus();
      }
      size_t close = EndOfGroup(group);
      if (close == std::string::npos) return Fail("'{' without '}'", group);
      return Styled(text, name, group + 1, close - 1, depth);
    }
    AddCommand(name);
    at_ = i;
    return absl::OkStatus();
  }

  // One unit, or one over another: "cm^2", "m/s", "C".
  static bool IsUnit(absl::string_view content) {
    for (absl::string_view part :
         absl::StrSplit(content, absl::ByAnyChar("/ "), absl::SkipEmpty())) {
      size_t letters = 0;
      while (letters < part.size() && IsAlpha(part[letters])) ++letters;
      absl::string_view rest = part.substr(letters);
      const bool temperature = part == "C" || part == "F" || part == "K";
      if (!temperature && FindUnit(part.substr(0, letters)) == nullptr) return false;
      for (char c : rest) {
        if (!IsDigit(c) && !absl::StrContains("^{}-", absl::string_view(&c, 1))) return false;
      }
    }
    return !content.empty();
  }

  // \text{5 meters}, \text{3 and 4}, \text{x = 3}: to be read as such. Not "2 lines" of words
  // alone, and not dates ("5 January" is read, and compared as words, where it is no unit).
  static bool IsMathematics(absl::string_view content) {
    const char first = content.empty() ? ' ' : content[0];
    return IsDigit(first) ||
           ((first == '-' || first == '.') && content.size() > 1 && IsDigit(content[1])) ||
           content.find_first_of("=<>+") != absl::string_view::npos;
  }

  // The argument of \text or of a style: words stay text, mathematics is read as such.
  absl::Status Styled(bool text, absl::string_view name, size_t begin, size_t end, int depth) {
    const size_t after = end + 1;
    std::string content =
        absl::StrReplaceAll(absl::string_view(ascii_).substr(begin, end - begin),
                            {{"~", " "}, {"\\,", " "}, {"\\;", " "}, {"\\ ", " "}});
    content = std::string(absl::StripAsciiWhitespace(content));
    bool letters = false, other = false;
    for (char c : content) {
      letters = letters || IsAlpha(c);
      other = other || !(IsAlpha(c) || IsSpace(c));
    }
    const bool commands = absl::StrContains(content, "$") || absl::StrContains(content, "\\");
    const bool value_before =
        !tokens_.empty() &&
        (tokens_.back().kind == TokenKind::kNumber || tokens_.back().text == "}" ||
         tokens_.back().text == "circ" || tokens_.back().text == "/" ||
         tokens_.back().text == "pi" || tokens_.back().text == ")");
    if (!text && value_before && !commands && IsUnit(content)) {
      // \mathrm{cm^2}, \mathrm{m/s}, \mathrm{C}
      Add(TokenKind::kText, absl::StrReplaceAll(content, {{"{", ""}, {"}", ""}}));
    } else if (!text && !other && PlainNames().contains(content)) {
      AddCommand(content);
    } else if (!text && !other && content.size() >= 2) {
      Add(TokenKind::kText, content);
    } else if (text && letters && !commands && !IsMathematics(content)) {
      Add(TokenKind::kText, content);
    } else if (!content.empty()) {
      // Braces keep the argument one factor: \mathbf{10}^2, \boxed{a+b}c.
      const bool braces = !text || name == "boxed";
      if (braces) Add(TokenKind::kSymbol, "{");
      if (absl::Status s = Scan(begin, end, depth + 1); !s.ok()) return s;
      if (braces) Add(TokenKind::kSymbol, "}");
    }
    at_ = after;
    return absl::OkStatus();
  }

  absl::string_view text_;
  const LexerOptions options_;
  const Limits& limits_;
  std::string ascii_;
  size_t at_ = 0, end_ = 0;
  bool space_ = false, single_dollar_ = false;
  int brackets_ = 0;
  int64_t total_digits_ = 0;
  std::vector<Token> tokens_;
};

}  // namespace

absl::StatusOr<std::vector<Token>> Lex(absl::string_view text, const LexerOptions& options,
                                       const Limits& limits) {
  return Lexer(text, options, limits).Run();
}

bool HasCommaGroups(absl::string_view text) {
  for (size_t comma = text.find(','); comma != absl::string_view::npos;
       comma = text.find(',', comma + 1)) {
    if (comma > 0 && IsDigit(text[comma - 1]) && comma + 3 < text.size() &&
        IsDigit(text[comma + 1]) && IsDigit(text[comma + 2]) && IsDigit(text[comma + 3]))
      return true;
  }
  return false;
}

}  // namespace e3::math
