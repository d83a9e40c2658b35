// Whether two answers are the same.
//
// Decision rules, in the order in which they apply to two scalars:
//   rational    both have exact rational values: compared exactly.
//   number      no variables: complex balls (Arb) at 64, 192 and 576 bits, more for large values.
//   The
//               numbers differ as soon as the balls do not meet. They are called equal when the
//               balls still meet with a difference below 2^-128 absolutely and 2^-256 of the value.
//   expression  with variables: identities of rational functions modulo three primes at random
//               points; all others in balls at random real points where the gold answer is real.
//   rounded     only where the gold answer is a decimal: see Options::precision.
// Tuples, points and matrices are compared element by element; sets, unions of intervals and
// inequalities as sets of real numbers; lists without brackets in any order; equations and
// inequalities up to a constant factor; text without styling and case.
#ifndef E3_REWARD_SERVICE_MATH_EQUIVALENCE_H_
#define E3_REWARD_SERVICE_MATH_EQUIVALENCE_H_

#include <optional>
#include <string>
#include <vector>

#include "reward_service/math/expression.h"
#include "reward_service/math/limits.h"

namespace e3::math {

struct Options {
  // Digits after the point to which an answer has to agree with a gold answer that is a decimal.
  // Unset: exactly, unless the gold answer is itself rounded: written with ≈, or with two digits or
  // more after the point where the answer has more digits, or an exact form that no decimal equals.
  std::optional<int> precision;
};

struct Comparison {
  bool equal = false;
  std::string rule;    // which rule decided
  std::string reason;  // one sentence
};

// Compares `answer` with `gold`. `arena` takes nodes made on the way.
Comparison Compare(const Node& gold, const Node& answer, const Options& options, Work* work,
                   Arena* arena);

}  // namespace e3::math

#endif  // E3_REWARD_SERVICE_MATH_EQUIVALENCE_H_
