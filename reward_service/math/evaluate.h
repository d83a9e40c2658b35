// The value of an expression, three ways:
//   exactly, as a rational number;
//   modulo a prime of 59 to 61 bits, with values for its variables: an identity of rational
//     functions of degree d that does not hold passes at one random point with probability below
//     d / 2^59 (Schwartz, Zippel);
//   as a complex ball that certainly contains it (Arb), at any precision.
#ifndef E3_REWARD_SERVICE_MATH_EVALUATE_H_
#define E3_REWARD_SERVICE_MATH_EVALUATE_H_

#include <acb.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "reward_service/math/expression.h"
#include "reward_service/math/limits.h"

namespace e3::math {

enum class Outcome {
  kValue,
  kOther,      // it has a value, but not of this sort (or not one that is found this way)
  kUndefined,  // division by zero, logarithm of zero, 0^0 …
  kLimit,      // beyond the limits
};

// Values of variables, by name. The last entry of a name counts.
using Assignment = std::vector<std::pair<std::string, Rational>>;

// Of an expression without variables, or with those that `values` gives.
Outcome EvaluateExactly(const Node& node, const Assignment& values, Work* work, Rational* out);

// The prime that `seed` stands for; the same for seeds that are equal modulo 3.
uint64_t ModuloPrime(uint64_t seed);

// Of an expression of +, −, ·, / and integer powers (kOther for others), modulo the prime and at
// the random point that `seed` stands for.
Outcome EvaluateModulo(const Node& node, uint64_t seed, Work* work, uint64_t* out);

// A complex ball.
class Ball {
 public:
  Ball() { acb_init(value_); }
  ~Ball() { acb_clear(value_); }
  Ball(const Ball&) = delete;
  Ball& operator=(const Ball&) = delete;
  acb_ptr get() { return value_; }
  acb_srcptr get() const { return value_; }
  // Whether a value on the way to it was not real.
  bool complex_step() const { return complex_step_; }
  void set_complex_step(bool complex) { complex_step_ = complex; }

 private:
  acb_t value_;
  bool complex_step_ = false;
};

// kValue only with a finite ball. Unknown functions f(x) get a value that depends on f and x alone.
Outcome EvaluateBall(const Node& node, const Assignment& values, int64_t precision, Work* work,
                     Ball* out);

// Names of the variables of `node`, each once, sorted; without indices of sums and products.
std::vector<std::string> Variables(const Node& node);

// Whether an unknown function, f(x), stands in `node`.
bool HasApply(const Node& node);

// Bound b with |value| < 2^b; 0 for zero, ±kBeyondCounting where b has more than 62 bits itself.
constexpr int64_t kBeyondCounting = int64_t{1} << 60;
int64_t Log2Bound(acb_srcptr value);

// Whether `node` is a value rather than a set, list, relation or text.
bool IsScalar(const Node& node);

}  // namespace e3::math

#endif  // E3_REWARD_SERVICE_MATH_EVALUATE_H_
