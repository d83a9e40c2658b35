// Units of measurement and currencies that answers carry.
#ifndef E3_REWARD_SERVICE_MATH_UNITS_H_
#define E3_REWARD_SERVICE_MATH_UNITS_H_

#include <cstdint>

#include "absl/strings/string_view.h"

namespace e3::math {

// A unit with its size in the base unit of its dimension: a mile is 1609.344 m.
struct Unit {
  const char* dimension;
  int64_t numerator, denominator;
};

// The unit called `name` ("cm", "inches", "$", …); nullptr when it is none that is known. Names of
// two or more letters are looked up without regard to case.
const Unit* FindUnit(absl::string_view name);

// A unit as answers write it, e.g. "square  Centimeters." or "cm^2": the unit behind it and the
// power it stands in. nullptr when it is not one known unit: "right triangles", "km per litre".
const Unit* ParseUnit(absl::string_view text, int* power);

// 12 for "dozen", 1,000,000 for "million"; 0 for other words.
int64_t NamedPower(absl::string_view word);

// Whether words behind a value can be its unit: "right triangles" can; "or 7", "squared" and "is
// wrong" cannot.
bool CanBeUnit(absl::string_view words);

}  // namespace e3::math

#endif  // E3_REWARD_SERVICE_MATH_UNITS_H_
