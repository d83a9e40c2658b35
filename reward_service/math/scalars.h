// Two scalars: equal, different, or beyond what can be decided.
#ifndef E3_REWARD_SERVICE_MATH_SCALARS_H_
#define E3_REWARD_SERVICE_MATH_SCALARS_H_

#include <optional>

#include "reward_service/math/equivalence.h"

namespace e3::math {

// Without units and ±. See equivalence.h for the rules.
Comparison CompareScalars(const Node& gold, const Node& answer, const Options& options, Work* work);

// Whether the difference of two equations' or inequalities' sides is the same up to a constant
// factor (positive, when `positive`): a·x + b·y − c and k·(a·x + b·y − c).
Comparison CompareUpToFactor(const Node& gold, const Node& answer, bool positive, Work* work);

// −1, 0 or 1 as a < b, a = b or a > b, for real constants and ±∞; nullopt when that is not known.
std::optional<int> Order(const Node& a, const Node& b, Work* work);

// Sign of ∞ or −∞; 0 for other nodes.
int InfinitySign(const Node& node);

}  // namespace e3::math

#endif  // E3_REWARD_SERVICE_MATH_SCALARS_H_
