// Boxed mathematical answers, at the level of exact rationals and normalised strings.
#ifndef E3_REWARD_SERVICE_MATH_MATH_VERIFIER_H_
#define E3_REWARD_SERVICE_MATH_MATH_VERIFIER_H_

#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "reward_service/verdict.h"

namespace e3 {

// The content of the last \boxed{…} or \fbox{…} with balanced braces. nullopt when there is none,
// or when the last one is not closed (a truncated response has not answered).
std::optional<std::string> LastBoxed(absl::string_view response);

// Judges the last box of `response` against `gold` (itself possibly boxed). Equal as exact
// rationals (integers, decimals, a/b, \frac{a}{b}, mixed numbers, thousands separators), else equal
// as strings after styling (\left, \dfrac, \text, spaces, $, degrees, …) is taken away.
// Thread-safe; time and memory are bounded: boxes over 16,384 characters are no answer.
Verdict VerifyMath(absl::string_view response, absl::string_view gold);

}  // namespace e3

#endif  // E3_REWARD_SERVICE_MATH_MATH_VERIFIER_H_
