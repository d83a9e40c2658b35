// The names that LaTeX and plain text have for one thing, and the ones that say nothing.
#ifndef E3_REWARD_SERVICE_MATH_NAMES_H_
#define E3_REWARD_SERVICE_MATH_NAMES_H_

#include <cstdint>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/string_view.h"

namespace e3::math {

using Names = absl::flat_hash_set<absl::string_view>;
using Synonyms = absl::flat_hash_map<absl::string_view, absl::string_view>;

// Commands that say nothing about the value.
const Names& Ignored();
// Their argument says nothing about the value either.
const Names& IgnoredWithArgument();
// Their argument is the value, or a word.
const Names& Styles();
// Their argument is text.
const Names& Texts();
// One name for commands that mean the same: \dfrac and \frac.
const Synonyms& CommandSynonyms();
// Names that plain text writes without a backslash.
const Names& PlainNames();
// What Unicode writes with one character, in LaTeX; nullptr for others.
const char* InLatex(uint32_t code_point);

}  // namespace e3::math

#endif  // E3_REWARD_SERVICE_MATH_NAMES_H_
