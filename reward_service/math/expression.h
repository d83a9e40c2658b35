// What an answer means, as a tree.
#ifndef E3_REWARD_SERVICE_MATH_EXPRESSION_H_
#define E3_REWARD_SERVICE_MATH_EXPRESSION_H_

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "reward_service/math/rational.h"

namespace e3::math {

enum class Kind : uint8_t {
  // Values.
  kNumber,    // `number`; `decimals` digits after the point when it was written as a decimal
  kPi,        // π
  kE,         // e
  kI,         // the imaginary unit
  kInfinity,  // ∞
  kVariable,  // `name`
  kSum,
  kProduct,
  kQuotient,   // args[0] / args[1]
  kNegative,   // −args[0]
  kPower,      // args[0] ^ args[1]
  kFunction,   // `function` of args
  kApply,      // an unknown function `name` of args
  kPlusMinus,  // ±args[0]; `negative` for ∓
  kMeasure,    // args[0] with unit `name`: "%", "°", "$", "cm", …
  kBased,      // digits `name` in base `base`; `number` is the value
  // What is made of values.
  kSequence,  // args between brackets `open` and `close`: a tuple, a point, an interval, a vector
  kSet,       // {args}
  kReals,     // ℝ
  kUnion,     // ∪ of args
  kIntersection,  // ∩ of args
  kDifference,    // args[0] ∖ args[1]
  kMatrix,        // `rows` × `columns`, row by row
  kRatio,         // a : b : c
  kRelation,      // args[0] relations[0] args[1] relations[1] …
  kList,          // a, b and c without brackets
  kText,          // `name`, in lower case, without styling
};

enum class Function : uint8_t {
  kNone,
  kRoot,
  kAbs,
  kFloor,
  kCeiling,
  kExp,
  kLn,
  kLog,
  kSin,
  kCos,
  kTan,
  kCot,
  kSec,
  kCsc,
  kArcsin,
  kArccos,
  kArctan,
  kSinh,
  kCosh,
  kTanh,
  kArcsinh,
  kArccosh,
  kArctanh,
  kCis,  // cos x + i sin x
  kFactorial,
  kDoubleFactorial,
  kBinomial,
  kMax,
  kMin,
  kGcd,
  kLcm,
  kSigma,  // Σ over `name` from args[0] to args[1] of args[2]
  kPi,     // Π over `name` from args[0] to args[1] of args[2]
};

enum class Relation : uint8_t {
  kEqual,
  kApprox,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kNotEqual,
  kIn
};

struct Node {
  Kind kind = Kind::kNumber;
  Function function = Function::kNone;
  char open = 0, close = 0;
  bool negative = false;
  bool approximate = false;         // "≈ 3.2", "1.234…"
  mutable bool plus_minus = false;  // a ± stands in it
  char joint = 0;                   // of a list: 'o' "or", 'a' "and", ',' else
  bool bare_log = false;  // \log without a base: ten, or e where the other side writes \ln
  int decimals = -1;
  int base = 0;
  int rows = 0, columns = 0;
  Rational number;
  std::string name;
  std::vector<const Node*> args;
  std::vector<Relation> relations;
};

// Owns the nodes of one answer.
class Arena {
 public:
  Node* New(Kind kind) {
    nodes_.emplace_back();
    nodes_.back().kind = kind;
    return &nodes_.back();
  }
  Node* New(Kind kind, std::vector<const Node*> args) {
    Node* node = New(kind);
    node->args = std::move(args);
    for (const Node* arg : node->args) node->plus_minus = node->plus_minus || arg->plus_minus;
    return node;
  }
  Node* Integer(int64_t value) {
    Node* node = New(Kind::kNumber);
    node->number = Rational(value);
    return node;
  }
  // The node made last.
  Node* last() { return &nodes_.back(); }
  size_t size() const { return nodes_.size(); }

 private:
  std::deque<Node> nodes_;
};

}  // namespace e3::math

#endif  // E3_REWARD_SERVICE_MATH_EXPRESSION_H_
