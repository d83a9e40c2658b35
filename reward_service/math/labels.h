// What stands in front of an answer: "x = 5", "f(x) = 2x", "P(X > 2) = 3/4".
#ifndef E3_REWARD_SERVICE_MATH_LABELS_H_
#define E3_REWARD_SERVICE_MATH_LABELS_H_

#include <string>
#include <vector>

#include "reward_service/math/expression.h"

namespace e3::math {

// Relations of "=" and "≈" only, and of neither.
bool IsEquation(const Node& node);
bool IsInequality(const Node& node);

// What names a quantity on the left of "=": x, f(x), AB, \text{area}, (x, y), m∠A.
bool IsLabel(const Node& node);

// x = value: the value (or the chain of equal values) behind a label.
struct Labelled {
  std::string label;      // empty: none
  bool loose = false;     // what is named is an expression, and may be an equation's side
  bool function = false;  // f(x), y: names of a function rather than of an unknown
  std::vector<const Node*> values;
};

// The node itself, without a label, where it is no equation or one to be solved: 2x = 17.
Labelled Unlabel(const Node& node);

}  // namespace e3::math

#endif  // E3_REWARD_SERVICE_MATH_LABELS_H_
