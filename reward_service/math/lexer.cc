#include "reward_service/math/lexer.h"

#include <algorithm>
#include <cstdlib>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "reward_service/math/units.h"

namespace e3::math {
namespace {

using Names = absl::flat_hash_set<absl::string_view>;
using Synonyms = absl::flat_hash_map<absl::string_view, absl::string_view>;

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsAlpha(char c) { return absl::ascii_isalpha(static_cast<unsigned char>(c)); }
bool IsSpace(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

// Says nothing about the value.
const Names& Ignored() {
  static const auto* names = new Names{"left",       "right",
                                       "big",        "Big",
                                       "bigg",       "Bigg",
                                       "bigl",       "bigr",
                                       "Bigl",       "Bigr",
                                       "biggl",      "biggr",
                                       "Biggl",      "Biggr",
                                       "middle",     "displaystyle",
                                       "textstyle",  "scriptstyle",
                                       "limits",     "nolimits",
                                       "quad",       "qquad",
                                       "enspace",    "thinspace",
                                       "medspace",   "negthinspace",
                                       "hfill",      "mathstrut",
                                       "strut",      "hline",
                                       "noindent",   "bf",
                                       "rm",         "it",
                                       "sf",         "tt",
                                       "normalsize", "large",
                                       "Large",      "small",
                                       "tiny",       "!",
                                       ",",          ";",
                                       ":",          ">",
                                       " ",          "/",
                                       "-",          "nonumber",
                                       "allowbreak", "nobreak",
                                       "null",       "relax",
                                       "par",        "newline",
                                       "smallskip",  "medskip",
                                       "mathbin",    "mathrel",
                                       "mathord",    "mathopen",
                                       "mathclose",  "mathpunct",
                                       "mathinner",  "therefore",
                                       "checkmark",  "Rightarrow",
                                       "qed",        "blacksquare",
                                       "square"};
  return *names;
}

// Their argument says nothing about the value either.
const Names& IgnoredWithArgument() {
  static const auto* names =
      new Names{"phantom",   "vphantom", "hphantom", "hspace", "vspace", "label", "tag",  "color",
                "textcolor", "colorbox", "mspace",   "kern",   "ref",    "vskip", "hskip"};
  return *names;
}

// Their argument is the value, or a word.
const Names& Styles() {
  static const auto* names = new Names{
      "mathbf",     "mathrm",     "mathit",     "mathsf", "mathtt", "mathcal",      "mathscr",
      "mathfrak",   "boldsymbol", "bm",         "pmb",    "mathop", "operatorname", "underline",
      "boxed",      "fbox",       "mathnormal", "vec",    "hat",    "ensuremath",   "smash",
      "underbrace", "overbrace",  "bold",       "uline",  "cancel"};
  return *names;
}

const Names& Texts() {
  static const auto* names =
      new Names{"text",   "mbox", "hbox",   "textbf", "textit", "textrm",   "textnormal", "textsf",
                "texttt", "emph", "textup", "textsc", "unit",   "mathtext", "textmd",     "textsl"};
  return *names;
}

const Synonyms& CommandSynonyms() {
  static const auto* names = new Synonyms{{"dfrac", "frac"},
                                          {"tfrac", "frac"},
                                          {"cfrac", "frac"},
                                          {"nicefrac", "frac"},
                                          {"sfrac", "frac"},
                                          {"xfrac", "frac"},
                                          {"dbinom", "binom"},
                                          {"tbinom", "binom"},
                                          {"leq", "le"},
                                          {"leqslant", "le"},
                                          {"leqq", "le"},
                                          {"geq", "ge"},
                                          {"geqslant", "ge"},
                                          {"geqq", "ge"},
                                          {"neq", "ne"},
                                          {"lt", "<"},
                                          {"gt", ">"},
                                          {"sim", "approx"},
                                          {"simeq", "approx"},
                                          {"thickapprox", "approx"},
                                          {"cong", "approx"},
                                          {"doteq", "="},
                                          {"equiv", "="},
                                          {"coloneqq", "="},
                                          {"times", "*"},
                                          {"cdot", "*"},
                                          {"ast", "*"},
                                          {"star", "*"},
                                          {"bullet", "*"},
                                          {"div", "/"},
                                          {"lvert", "|"},
                                          {"rvert", "|"},
                                          {"vert", "|"},
                                          {"lbrack", "["},
                                          {"rbrack", "]"},
                                          {"lparen", "("},
                                          {"rparen", ")"},
                                          {"lbrace", "{"},
                                          {"rbrace", "}"},
                                          {"arcsinh", "arsinh"},
                                          {"arccosh", "arcosh"},
                                          {"arctanh", "artanh"},
                                          {"asin", "arcsin"},
                                          {"acos", "arccos"},
                                          {"atan", "arctan"},
                                          {"asinh", "arsinh"},
                                          {"acosh", "arcosh"},
                                          {"atanh", "artanh"},
                                          {"tg", "tan"},
                                          {"ctg", "cot"},
                                          {"cosec", "csc"},
                                          {"infinity", "infty"},
                                          {"inf", "infty"},
                                          {"Inf", "infty"},
                                          {"infin", "infty"},
                                          {"oo", "infty"},
                                          {"degree", "circ"},
                                          {"degrees", "circ"},
                                          {"dots", "ldots"},
                                          {"cdots", "ldots"},
                                          {"dotsc", "ldots"},
                                          {"dotsb", "ldots"},
                                          {"dotsm", "ldots"},
                                          {"bigcup", "cup"},
                                          {"bigcap", "cap"},
                                          {"backslash", "setminus"},
                                          {"smallsetminus", "setminus"},
                                          {"varnothing", "emptyset"},
                                          {"varphi", "phi"},
                                          {"varepsilon", "epsilon"},
                                          {"vartheta", "theta"},
                                          {"isin", "in"},
                                          {"land", "and"},
                                          {"lor", "or"},
                                          {"wedge", "and"},
                                          {"vee", "or"},
                                          {"rightarrow", "to"},
                                          {"Rightarrow", "implies"},
                                          {"dot", "overline"},
                                          {"bar", "overline"},
                                          {"GCD", "gcd"},
                                          {"LCM", "lcm"},
                                          {"colon", ":"},
                                          {"textdegree", "circ"},
                                          {"percent", "%"},
                                          {"R", "reals"},
                                          {"prime", "'"}};
  return *names;
}

// Names that plain text writes without a backslash.
const Names& PlainNames() {
  static const auto* names = new Names{
      "sin",   "cos",     "tan",    "cot",   "sec",   "csc",   "arcsin",   "arccos", "arctan",
      "sinh",  "cosh",    "tanh",   "asin",  "acos",  "atan",  "asinh",    "acosh",  "atanh",
      "ln",    "log",     "exp",    "sqrt",  "cbrt",  "max",   "min",      "gcd",    "lcm",
      "abs",   "floor",   "ceil",   "binom", "pi",    "theta", "alpha",    "beta",   "gamma",
      "delta", "lambda",  "mu",     "sigma", "omega", "phi",   "infinity", "inf",    "infty",
      "oo",    "degrees", "degree", "cis",   "frac",  "cup",   "times",    "cdot",   "GCD",
      "LCM",   "lg",      "pm"};
  return *names;
}

struct CodePoint {
  uint32_t code;
  const char* replacement;
};

// What Unicode writes with one character, in LaTeX.
constexpr CodePoint kCodePoints[] = {{0xA0, " "},
                                     {0xA2, "\\text{cents}"},
                                     {0xA3, "\\pounds "},
                                     {0xB0, "\\circ "},
                                     {0xB1, "\\pm "},
                                     {0xB2, "^{2}"},
                                     {0xB3, "^{3}"},
                                     {0xB9, "^{1}"},
                                     {0xB7, "\\cdot "},
                                     {0xBC, "\\frac{1}{4}"},
                                     {0xBD, "\\frac{1}{2}"},
                                     {0xBE, "\\frac{3}{4}"},
                                     {0xD7, "\\times "},
                                     {0xF7, "\\div "},
                                     {0x3B1, "\\alpha "},
                                     {0x3B2, "\\beta "},
                                     {0x3B3, "\\gamma "},
                                     {0x3B4, "\\delta "},
                                     {0x3B8, "\\theta "},
                                     {0x3BB, "\\lambda "},
                                     {0x3BC, "\\mu "},
                                     {0x3C0, "\\pi "},
                                     {0x3C3, "\\sigma "},
                                     {0x3C6, "\\phi "},
                                     {0x3C9, "\\omega "},
                                     {0x2002, " "},
                                     {0x2003, " "},
                                     {0x2009, " "},
                                     {0x200A, " "},
                                     {0x200B, ""},
                                     {0x200C, ""},
                                     {0x200D, ""},
                                     {0x202F, " "},
                                     {0xFEFF, ""},
                                     {0x2060, ""},
                                     {0x2061, ""},
                                     {0x2062, ""},
                                     {0x2010, "-"},
                                     {0x2011, "-"},
                                     {0x2012, "-"},
                                     {0x2013, "-"},
                                     {0x2014, "-"},
                                     {0x2212, "-"},
                                     {0x2018, "'"},
                                     {0x2019, "'"},
                                     {0x2032, "'"},
                                     {0x2022, "\\cdot "},
                                     {0x2026, "\\ldots "},
                                     {0x2044, "/"},
                                     {0x2070, "^{0}"},
                                     {0x2074, "^{4}"},
                                     {0x2075, "^{5}"},
                                     {0x2076, "^{6}"},
                                     {0x2077, "^{7}"},
                                     {0x2078, "^{8}"},
                                     {0x2079, "^{9}"},
                                     {0x207F, "^{n}"},
                                     {0x2080, "_{0}"},
                                     {0x2081, "_{1}"},
                                     {0x2082, "_{2}"},
                                     {0x2083, "_{3}"},
                                     {0x2084, "_{4}"},
                                     {0x2085, "_{5}"},
                                     {0x2086, "_{6}"},
                                     {0x2087, "_{7}"},
                                     {0x2088, "_{8}"},
                                     {0x2089, "_{9}"},
                                     {0x20AC, "\\euro "},
                                     {0x2102, "\\mathbb{C}"},
                                     {0x2115, "\\mathbb{N}"},
                                     {0x211D, "\\mathbb{R}"},
                                     {0x2124, "\\mathbb{Z}"},
                                     {0x211A, "\\mathbb{Q}"},
                                     {0x2153, "\\frac{1}{3}"},
                                     {0x2154, "\\frac{2}{3}"},
                                     {0x2155, "\\frac{1}{5}"},
                                     {0x2156, "\\frac{2}{5}"},
                                     {0x2157, "\\frac{3}{5}"},
                                     {0x2158, "\\frac{4}{5}"},
                                     {0x2159, "\\frac{1}{6}"},
                                     {0x215A, "\\frac{5}{6}"},
                                     {0x215B, "\\frac{1}{8}"},
                                     {0x215C, "\\frac{3}{8}"},
                                     {0x215D, "\\frac{5}{8}"},
                                     {0x215E, "\\frac{7}{8}"},
                                     {0x2192, "\\to "},
                                     {0x21D2, "\\implies "},
                                     {0x2205, "\\emptyset "},
                                     {0x2208, "\\in "},
                                     {0x2215, "/"},
                                     {0x2216, "\\setminus "},
                                     {0x2217, "*"},
                                     {0x2218, "\\circ "},
                                     {0x2219, "\\cdot "},
                                     {0x221A, "\\sqrt "},
                                     {0x221B, "\\sqrt[3] "},
                                     {0x221E, "\\infty "},
                                     {0x2223, "|"},
                                     {0x2227, "\\and "},
                                     {0x2228, "\\or "},
                                     {0x2229, "\\cap "},
                                     {0x222A, "\\cup "},
                                     {0x2236, ":"},
                                     {0x223C, "\\approx "},
                                     {0x2245, "\\approx "},
                                     {0x2248, "\\approx "},
                                     {0x2260, "\\ne "},
                                     {0x2261, "="},
                                     {0x2264, "\\le "},
                                     {0x2265, "\\ge "},
                                     {0x22C5, "\\cdot "},
                                     {0x22C6, "*"},
                                     {0x2A7D, "\\le "},
                                     {0x2A7E, "\\ge "},
                                     {0x2308, "\\lceil "},
                                     {0x2309, "\\rceil "},
                                     {0x230A, "\\lfloor "},
                                     {0x230B, "\\rfloor "},
                                     {0x27E8, "\\langle "},
                                     {0x27E9, "\\rangle "},
                                     {0x2329, "\\langle "},
                                     {0x232A, "\\rangle "},
                                     {0x00B5, "\\mu "},
                                     {0x3000, " "},
                                     {0x3001, ","},
                                     {0x3002, "."}};

// Decodes one code point; false for what is not UTF-8.
bool Decode(absl::string_view text, size_t at, uint32_t* code, size_t* length) {
  auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(at);
  size_t n = first < 0x80         ? 1
             : (first >> 5) == 6  ? 2
             : (first >> 4) == 14 ? 3
             : (first >> 3) == 30 ? 4
                                  : 0;
  if (n == 0 || at + n > text.size()) return false;
  uint32_t value = n == 1 ? first : first & (0xFF >> (n + 1));
  for (size_t i = 1; i < n; ++i) {
    if ((byte(at + i) >> 6) != 2) return false;
    value = (value << 6) | (byte(at + i) & 0x3F);
  }
  static constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  if (value < kSmallest[n] || value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) return false;
  *code = value;
  *length = n;
  return true;
}

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
      if (!Decode(text_, i, &code, &length)) return Fail("not UTF-8", i);
      if (code < 0x80) {
        if (code < 0x20 && !IsSpace(static_cast<char>(code))) return Fail("a control character", i);
        if (code == 0x7F) return Fail("a control character", i);
        ascii_.push_back(static_cast<char>(code));
      } else if (code >= 0xFF01 && code <= 0xFF5E) {  // full-width ASCII
        ascii_.push_back(static_cast<char>(code - 0xFF01 + 0x21));
      } else if (code >= 0x1D7CE && code <= 0x1D7FF) {  // mathematical digits
        ascii_.push_back(static_cast<char>('0' + (code - 0x1D7CE) % 10));
      } else {
        auto it = std::find_if(std::begin(kCodePoints), std::end(kCodePoints),
                               [&](const CodePoint& p) { return p.code == code; });
        if (it != std::end(kCodePoints)) {
          ascii_ += it->replacement;
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
    static const auto* two =
        new Names{"sq", "cu", "no", "No", "or", "to", "is", "of", "in", "at", "am", "pm",
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
