// Sets of real numbers: intervals, points, their unions, and the solutions of inequalities.
#ifndef E3_REWARD_SERVICE_MATH_REAL_SETS_H_
#define E3_REWARD_SERVICE_MATH_REAL_SETS_H_

#include <optional>
#include <vector>

#include "reward_service/math/expression.h"
#include "reward_service/math/limits.h"

namespace e3::math {

struct Piece {
  const Node* low;  // −∞ with low_closed false
  const Node* high;
  bool low_closed, high_closed;
};

// Disjoint pieces in rising order, none of which touches the next.
using RealSet = std::vector<Piece>;

// The set that `node` writes: (a, b], {1, 2}, ℝ, unions, intersections, differences, x > 2,
// 1 ≤ x < 5, x ≠ 3. nullopt when it is not one, or when its ends cannot be ordered. `*subject` is
// the left-hand side of inequalities, when there is one.
std::optional<RealSet> ToRealSet(const Node& node, Work* work, Arena* arena, const Node** subject);

// As ToRealSet for a list of inequalities joined by "or" (`all` false) or "and" (`all` true).
std::optional<RealSet> ListToRealSet(const Node& list, bool all, Work* work, Arena* arena,
                                     const Node** subject);

// nullopt when ends cannot be compared.
std::optional<bool> SameSet(const RealSet& a, const RealSet& b, Work* work);

}  // namespace e3::math

#endif  // E3_REWARD_SERVICE_MATH_REAL_SETS_H_
