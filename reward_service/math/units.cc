#include "reward_service/math/units.h"

#include <algorithm>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace e3::math {
namespace {

using Table = absl::flat_hash_map<absl::string_view, Unit>;

const Table& Units() {
  static const auto* units = new Table{// Lengths, in millimetres.
                                       {"mm", {"length", 1, 1}},
                                       {"millimeter", {"length", 1, 1}},
                                       {"millimetre", {"length", 1, 1}},
                                       {"cm", {"length", 10, 1}},
                                       {"centimeter", {"length", 10, 1}},
                                       {"centimetre", {"length", 10, 1}},
                                       {"dm", {"length", 100, 1}},
                                       {"m", {"length", 1000, 1}},
                                       {"meter", {"length", 1000, 1}},
                                       {"metre", {"length", 1000, 1}},
                                       {"km", {"length", 1000000, 1}},
                                       {"kilometer", {"length", 1000000, 1}},
                                       {"kilometre", {"length", 1000000, 1}},
                                       {"in", {"length", 254, 10}},
                                       {"inch", {"length", 254, 10}},
                                       {"inches", {"length", 254, 10}},
                                       {"ft", {"length", 3048, 10}},
                                       {"foot", {"length", 3048, 10}},
                                       {"feet", {"length", 3048, 10}},
                                       {"yd", {"length", 9144, 10}},
                                       {"yard", {"length", 9144, 10}},
                                       {"mi", {"length", 1609344, 1}},
                                       {"mile", {"length", 1609344, 1}},
                                       // Times, in seconds.
                                       {"s", {"time", 1, 1}},
                                       {"sec", {"time", 1, 1}},
                                       {"second", {"time", 1, 1}},
                                       {"min", {"time", 60, 1}},
                                       {"minute", {"time", 60, 1}},
                                       {"h", {"time", 3600, 1}},
                                       {"hr", {"time", 3600, 1}},
                                       {"hour", {"time", 3600, 1}},
                                       {"day", {"time", 86400, 1}},
                                       {"week", {"time", 604800, 1}},
                                       // Masses, in milligrams.
                                       {"mg", {"mass", 1, 1}},
                                       {"g", {"mass", 1000, 1}},
                                       {"gram", {"mass", 1000, 1}},
                                       {"kg", {"mass", 1000000, 1}},
                                       {"kilogram", {"mass", 1000000, 1}},
                                       {"lb", {"mass", 45359237, 100}},
                                       {"lbs", {"mass", 45359237, 100}},
                                       {"pound", {"mass", 45359237, 100}},
                                       {"ounce", {"mass", 45359237, 1600}},
                                       {"oz", {"mass", 45359237, 1600}},
                                       // Volumes, in millilitres.
                                       {"ml", {"volume", 1, 1}},
                                       {"L", {"volume", 1000, 1}},
                                       {"liter", {"volume", 1000, 1}},
                                       {"litre", {"volume", 1000, 1}},
                                       {"gallon", {"gallon", 1, 1}},
                                       {"acre", {"acre", 1, 1}},
                                       // Money, in cents.
                                       {"$", {"dollar", 100, 1}},
                                       {"dollar", {"dollar", 100, 1}},
                                       {"usd", {"dollar", 100, 1}},
                                       {"cent", {"dollar", 1, 1}},
                                       {"euro", {"euro", 1, 1}},
                                       {"eur", {"euro", 1, 1}},
                                       {"pounds sterling", {"sterling", 1, 1}},
                                       {"rupee", {"rupee", 1, 1}},
                                       {"yen", {"yen", 1, 1}},
                                       {"mph", {"mph", 1, 1}},
                                       {"miles per hour", {"mph", 1, 1}},
                                       {"mile/hour", {"mph", 1, 1}},
                                       {"miles/hour", {"mph", 1, 1}},
                                       // Clocks: not to be confused.
                                       {"am", {"am", 1, 1}},
                                       {"a.m", {"am", 1, 1}},
                                       {"pm", {"pm", 1, 1}},
                                       {"p.m", {"pm", 1, 1}}};
  return *units;
}

// A number of its own: not the 2 of "cm2" or "cm^2".
bool HasNumber(absl::string_view text) {
  for (size_t i = 1; i < text.size(); ++i) {
    if (absl::ascii_isdigit(static_cast<unsigned char>(text[i])) &&
        !absl::ascii_isalnum(static_cast<unsigned char>(text[i - 1])) && text[i - 1] != '^' &&
        text[i - 1] != '-')
      return true;
  }
  return false;
}

}  // namespace

const Unit* FindUnit(absl::string_view name) {
  const Table& units = Units();
  std::string lower = name.size() > 1 ? absl::AsciiStrToLower(name) : std::string(name);
  auto it = units.find(lower);
  if (it == units.end() && lower.size() > 2 && absl::EndsWith(lower, "s"))
    it = units.find(absl::StripSuffix(lower, "s"));
  return it == units.end() ? nullptr : &it->second;
}

const Unit* ParseUnit(absl::string_view text, int* power) {
  *power = 1;
  std::string lower = absl::AsciiStrToLower(text);
  std::string words;
  for (absl::string_view word : absl::StrSplit(lower, absl::ByAnyChar(" \t~"), absl::SkipEmpty())) {
    while (!word.empty() && (word.back() == '.' || word.back() == ',')) word.remove_suffix(1);
    if (word == "square" || word == "sq") {
      *power = 2;
    } else if (word == "cubic" || word == "cu") {
      *power = 3;
    } else if (!word.empty()) {
      if (!words.empty()) words += ' ';
      words += std::string(word);
    }
  }
  size_t caret = words.find('^');
  if (caret != std::string::npos) {
    std::string exponent = words.substr(caret + 1);
    words.resize(caret);
    if (exponent == "2" || exponent == "3")
      *power = exponent[0] - '0';
    else
      return nullptr;
  }
  return FindUnit(text.size() == 1 ? text : absl::string_view(words));
}

int64_t NamedPower(absl::string_view word) {
  if (word == "dozen") return 12;
  if (word == "hundred") return 100;
  if (word == "thousand") return 1000;
  if (word == "million") return 1000000;
  if (word == "billion") return 1000000000;
  if (word == "trillion") return 1000000000000;
  return 0;
}

bool CanBeUnit(absl::string_view words) {
  const std::string lower = absl::StrCat(" ", absl::AsciiStrToLower(words), " ");
  static const auto* others = new absl::flat_hash_set<absl::string_view>{
      "or",        "and",     "not",   "is",     "isn't", "are",     "was",   "to",
      "out",       "squared", "cubed", "half",   "third", "quarter", "pi",    "wrong",
      "incorrect", "plus",    "minus", "times",  "over",  "divided", "point", "maybe",
      "but",       "if",      "no",    "unless", "except"};
  for (absl::string_view word :
       absl::StrSplit(lower, absl::ByAnyChar(" ,;:()"), absl::SkipEmpty())) {
    if (others->contains(word)) return false;
  }
  return !HasNumber(lower) && lower.find_first_of("=<>+*:;") == std::string::npos;
}

}  // namespace e3::math
