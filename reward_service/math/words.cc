#include "reward_service/math/words.h"

#include <algorithm>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace e3::math {
namespace {

const absl::flat_hash_map<absl::string_view, int>& NumberWords() {
  static const auto* words = new absl::flat_hash_map<absl::string_view, int>{
      {"zero", 0},     {"one", 1},      {"two", 2},        {"three", 3},     {"four", 4},
      {"five", 5},     {"six", 6},      {"seven", 7},      {"eight", 8},     {"nine", 9},
      {"ten", 10},     {"eleven", 11},  {"twelve", 12},    {"thirteen", 13}, {"fourteen", 14},
      {"fifteen", 15}, {"sixteen", 16}, {"seventeen", 17}, {"eighteen", 18}, {"nineteen", 19},
      {"twenty", 20}};
  return *words;
}

// "twenty-one": 0 to 99; -1 for other words.
int NumberOfWords(absl::string_view words) {
  static const auto* tens = new absl::flat_hash_map<absl::string_view, int>{
      {"twenty", 20}, {"thirty", 30},  {"forty", 40},  {"fifty", 50},
      {"sixty", 60},  {"seventy", 70}, {"eighty", 80}, {"ninety", 90}};
  if (auto it = NumberWords().find(words); it != NumberWords().end()) return it->second;
  const size_t hyphen = words.find_first_of("- ");
  auto ten = tens->find(words.substr(0, hyphen));
  if (ten == tens->end()) return -1;
  if (hyphen == absl::string_view::npos) return ten->second;
  auto one = NumberWords().find(words.substr(hyphen + 1));
  return one == NumberWords().end() || one->second < 1 || one->second > 9
             ? -1
             : ten->second + one->second;
}

}  // namespace

const Node* TextNode(absl::string_view text, Arena* arena) {
  std::string name = NormalizeText(text);
  if (int number = NumberOfWords(name); number >= 0) return arena->Integer(number);
  static const auto* known =
      new absl::flat_hash_map<absl::string_view, Kind>{{"no solution", Kind::kSet},
                                                       {"no solutions", Kind::kSet},
                                                       {"no real solution", Kind::kSet},
                                                       {"no real solutions", Kind::kSet},
                                                       {"none", Kind::kSet},
                                                       {"empty", Kind::kSet},
                                                       {"empty set", Kind::kSet},
                                                       {"the empty set", Kind::kSet},
                                                       {"infinity", Kind::kInfinity},
                                                       {"all real numbers", Kind::kReals},
                                                       {"all reals", Kind::kReals}};
  if (auto it = known->find(name); it != known->end()) return arena->New(it->second);
  Node* node = arena->New(Kind::kText);
  node->name = name == "dne" || name == "undefined" ? "does not exist" : std::move(name);
  return node;
}

const Node* WordsNode(const std::string& text, const Limits& limits, Arena* arena) {
  std::vector<const Node*> items;
  std::string rest = absl::StrReplaceAll(text, {{" and ", ","}, {" or ", ","}, {";", ","}});
  size_t begin = 0;
  while (begin <= rest.size()) {
    size_t comma = std::min(rest.find(',', begin), rest.size());
    absl::string_view item = absl::string_view(rest).substr(begin, comma - begin);
    if (!NormalizeText(item).empty()) items.push_back(TextNode(item, arena));
    if (static_cast<int64_t>(items.size()) > limits.list_items) return TextNode(text, arena);
    begin = comma + 1;
  }
  if (items.empty()) return TextNode(text, arena);
  return items.size() == 1 ? items[0] : arena->New(Kind::kList, std::move(items));
}

std::optional<std::string> OnlyWords(const std::vector<Token>& tokens) {
  bool word = false;
  int depth = 0;
  std::string text;
  for (const Token& t : tokens) {
    switch (t.kind) {
      case TokenKind::kText:
      case TokenKind::kWord:
        word = true;
        absl::StrAppend(&text, text.empty() || text.back() == '(' ? "" : " ", t.text);
        break;
      case TokenKind::kLetter:
        absl::StrAppend(&text, t.space ? " " : "", t.text);
        break;
      case TokenKind::kSymbol:
        if (t.text == "(" || t.text == "{" || t.text == "[") {
          ++depth;
        } else if (t.text == ")" || t.text == "}" || t.text == "]") {
          --depth;
        } else if (t.text == "," || t.text == ";" || t.text == "!" || t.text == "'") {
          if (depth > 0) return std::nullopt;
          text += t.text == ";" ? "," : t.text == "!" ? "" : t.text;
        } else if (t.text == "-") {
          text += t.text;
        } else {
          return std::nullopt;
        }
        break;
      case TokenKind::kEnd:
        break;
      default:
        return std::nullopt;
    }
  }
  if (!word) return std::nullopt;
  return text;
}

std::string NormalizeText(absl::string_view text) {
  std::string out;
  bool space = false;
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '\\') {
      // A command of styling says nothing; what it styles does.
      size_t end = i + 1;
      while (end < text.size() && absl::ascii_isalpha(static_cast<unsigned char>(text[end]))) ++end;
      absl::string_view name = text.substr(i + 1, end - i - 1);
      if (name.empty()) {
        if (end < text.size() && (text[end] == ' ' || text[end] == ',' || text[end] == ';'))
          space = true;
        else if (end < text.size() && text[end] != '!')
          out.push_back(text[end]);
        i = std::min(end, text.size() - 1);
        continue;
      }
      static const auto* styling = new absl::flat_hash_set<absl::string_view>{
          "text",  "textbf",       "textit", "textrm",     "mathrm", "mathbf",       "mbox", "left",
          "right", "displaystyle", "quad",   "textnormal", "boxed",  "operatorname", "emph"};
      if (name == "dots" || name == "cdots" || name == "dotsc") name = "ldots";
      if (!styling->contains(name)) absl::StrAppend(&out, "\\", name);
      i = end - 1;
    } else if (absl::ascii_isspace(static_cast<unsigned char>(c)) || c == '~') {
      space = true;
    } else if (absl::StrContains("$*{}\"`", absl::string_view(&c, 1))) {
    } else {
      if (space && !out.empty()) out.push_back(' ');
      space = false;
      out.push_back(absl::ascii_tolower(static_cast<unsigned char>(c)));
    }
  }
  absl::string_view trimmed = out;
  while (!trimmed.empty() && absl::StrContains(" .,;:!?()", trimmed.substr(0, 1)))
    trimmed.remove_prefix(1);
  while (!trimmed.empty() && absl::StrContains(" .,;:!?()", trimmed.substr(trimmed.size() - 1)))
    trimmed.remove_suffix(1);
  return std::string(trimmed);
}

}  // namespace e3::math
