#include "reward_service/math/scalars.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "reward_service/math/evaluate.h"

namespace e3::math {
namespace {

enum class Truth { kEqual, kDifferent, kUndefined, kUnknown };

// Whether a bound of |value|'s radius is below 2^exponent.
bool RadiusBelow(acb_srcptr value, int64_t exponent) {
  return mag_cmp_2exp_si(arb_radref(acb_realref(value)), exponent) < 0 &&
         mag_cmp_2exp_si(arb_radref(acb_imagref(value)), exponent) < 0;
}

Comparison Say(Truth truth, const char* rule, absl::string_view equal,
               absl::string_view different) {
  switch (truth) {
    case Truth::kEqual:
      return {true, rule, std::string(equal)};
    case Truth::kDifferent:
      return {false, rule, std::string(different)};
    case Truth::kUndefined:
      return {false, "undefined", "an answer has no value (such as a division by zero)"};
    case Truth::kUnknown:
      break;
  }
  return {false, "undecided", "beyond the limits of what can be decided"};
}

// The rising precisions of the rule "number". At a point (`values`), or without variables.
Truth CompareBalls(const Node& gold, const Node& answer, const Assignment& values, Work* work) {
  for (int64_t precision = 64; precision <= 16384;) {
    Ball g, a, difference;
    Outcome og = EvaluateBall(gold, values, precision, work, &g);
    Outcome oa = og == Outcome::kValue ? EvaluateBall(answer, values, precision, work, &a) : og;
    if (og == Outcome::kOther || oa == Outcome::kOther || og == Outcome::kLimit ||
        oa == Outcome::kLimit)
      return Truth::kUnknown;
    if (og == Outcome::kUndefined || oa == Outcome::kUndefined) {
      if (precision >= 576) return Truth::kUndefined;
      precision *= 3;
      continue;
    }
    acb_sub(difference.get(), g.get(), a.get(), precision);
    if (!acb_contains_zero(difference.get())) return Truth::kDifferent;
    const int64_t size = Log2Bound(g.get());
    if (precision >= 576 && RadiusBelow(difference.get(), -128) &&
        RadiusBelow(difference.get(),
                    size < 0 && size > -100000 && !acb_contains_zero(g.get()) ? size - 256 : -128))
      return Truth::kEqual;
    if (size > 15000 || size == -kBeyondCounting) return Truth::kUnknown;
    // Digits that cancel get one chance more; large values as many bits as they have.
    if (precision >= 1728 && precision >= size + 512) return Truth::kUnknown;
    precision = precision >= 576 ? std::max<int64_t>(1728, size + 512) : precision * 3;
  }
  return Truth::kUnknown;
}

// Random rational points in (0, 8), of either sign from the fourth point on. The denominator is a
// prime that no period of an answer's functions has a reason to divide.
constexpr int64_t kDenominator = 1000003;
Assignment RandomPoint(const std::vector<std::string>& names, uint64_t index) {
  Assignment values;
  uint64_t state = 0x9E3779B97F4A7C15 * (index + 1);
  for (const std::string& name : names) {
    for (char c : name) state = (state ^ static_cast<unsigned char>(c)) * 0x100000001B3;
    state ^= state >> 29;
    state *= 0xBF58476D1CE4E5B9;
    int64_t value = static_cast<int64_t>((state >> 33) % (8 * kDenominator)) + 1;
    if (index >= 3 && ((state >> 20) & 1) != 0) value = -value;
    Rational r(value), denominator(kDenominator);
    fmpq_div(r.get(), r.get(), denominator.get());
    values.emplace_back(name, std::move(r));
  }
  return values;
}

std::vector<std::string> AllVariables(const Node& a, const Node& b) {
  std::vector<std::string> names = Variables(a), more = Variables(b);
  names.insert(names.end(), more.begin(), more.end());
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

bool SameTree(const Node& a, const Node& b) {
  if (a.kind != b.kind || a.function != b.function || a.name != b.name ||
      a.args.size() != b.args.size() || a.relations != b.relations || a.open != b.open ||
      a.close != b.close || !(a.number == b.number) || a.negative != b.negative ||
      a.base != b.base || a.rows != b.rows)
    return false;
  for (size_t i = 0; i < a.args.size(); ++i) {
    if (!SameTree(*a.args[i], *b.args[i])) return false;
  }
  return true;
}

// Identities with variables.
Truth CompareExpressions(const Node& gold, const Node& answer,
                         const std::vector<std::string>& names, Work* work) {
  int agreed = 0;
  bool rational = true;
  for (uint64_t seed = 1; seed <= 8 && agreed < 3; ++seed) {
    uint64_t g = 0, a = 0;
    Outcome og = EvaluateModulo(gold, seed, work, &g), oa = EvaluateModulo(answer, seed, work, &a);
    if (og == Outcome::kLimit || oa == Outcome::kLimit) return Truth::kUnknown;
    if (og == Outcome::kOther || oa == Outcome::kOther) {
      rational = false;
      break;
    }
    if (og == Outcome::kUndefined || oa == Outcome::kUndefined) {
      // At a random point only what is undefined everywhere is undefined.
      if (og == Outcome::kUndefined && seed < 3) continue;
      return Truth::kUndefined;
    }
    if (g != a) return Truth::kDifferent;
    ++agreed;
  }
  if (rational && agreed == 3) {
    // No answer is made of multiples of the primes: one point exactly, where that is within the
    // limits.
    Rational g, a;
    Assignment point = RandomPoint(names, 1);
    if (EvaluateExactly(gold, point, work, &g) == Outcome::kValue &&
        EvaluateExactly(answer, point, work, &a) == Outcome::kValue && !(g == a))
      return Truth::kDifferent;
    return Truth::kEqual;
  }
  if (rational) return Truth::kUndefined;
  agreed = 0;
  int complex_agreed = 0;
  for (uint64_t point = 0; point < 10 && agreed < 5; ++point) {
    Assignment values = RandomPoint(names, point);
    Ball g;
    Outcome og = EvaluateBall(gold, values, 64, work, &g);
    if (og == Outcome::kLimit || og == Outcome::kOther) return Truth::kUnknown;
    if (og == Outcome::kUndefined) continue;
    // Where a value, or a root or a logarithm on the way, is not real, other branches may be meant:
    // √(ab) is √a·√b where both are real.
    Ball a;
    const bool answered = EvaluateBall(answer, values, 64, work, &a) == Outcome::kValue;
    const bool real = acb_is_real(g.get()) && !g.complex_step() &&
                      !(answered && acb_is_real(a.get()) && a.complex_step());
    Truth truth = CompareBalls(gold, answer, values, work);
    if (truth == Truth::kUnknown) return truth;
    if (truth == Truth::kUndefined) continue;
    if (truth == Truth::kDifferent && real) return truth;
    if (truth == Truth::kDifferent) --complex_agreed;
    if (truth == Truth::kEqual) (real ? agreed : complex_agreed) += 1;
  }
  if (agreed >= 2) return Truth::kEqual;
  if (agreed == 0 && complex_agreed >= 4) return Truth::kEqual;
  return agreed == 0 && complex_agreed < 0 ? Truth::kDifferent : Truth::kUnknown;
}

std::optional<Rational> ExactValue(const Node& node, Work* work, Outcome* outcome) {
  Rational value;
  *outcome = EvaluateExactly(node, {}, work, &value);
  if (*outcome != Outcome::kValue) return std::nullopt;
  return value;
}

// Whether |gold − answer| < ½·10^−digits, certainly.
Truth WithinRounding(const Node& gold, const Node& answer, int digits, Work* work) {
  for (int64_t precision : {256, 1024}) {
    work->Restart();
    Ball g, a, difference, size, bound;
    if (EvaluateBall(gold, {}, precision, work, &g) != Outcome::kValue ||
        EvaluateBall(answer, {}, precision, work, &a) != Outcome::kValue)
      return Truth::kUnknown;
    acb_sub(difference.get(), g.get(), a.get(), precision);
    acb_abs(acb_realref(size.get()), difference.get(), precision);
    arb_set_si(acb_realref(bound.get()), 10);
    arb_pow_ui(acb_realref(bound.get()), acb_realref(bound.get()), static_cast<ulong>(digits),
               precision);
    arb_mul_2exp_si(acb_realref(bound.get()), acb_realref(bound.get()), 1);
    arb_inv(acb_realref(bound.get()), acb_realref(bound.get()), precision);
    if (arb_lt(acb_realref(size.get()), acb_realref(bound.get()))) return Truth::kEqual;
    if (arb_gt(acb_realref(size.get()), acb_realref(bound.get()))) return Truth::kDifferent;
  }
  // Half a unit away, or a value that is not known so well.
  return Truth::kDifferent;
}

const Node* WithoutSign(const Node* node) {
  return node->kind == Kind::kNegative ? node->args[0] : node;
}

// Applies the rule "rounded" to two different values; nullopt when the gold answer is no rounded
// decimal.
std::optional<Comparison> CompareRounded(const Node& gold, const Node& answer,
                                         const Options& options, Work* work) {
  const Node& decimal = *WithoutSign(&gold);
  if (decimal.kind != Kind::kNumber) return std::nullopt;
  if (options.precision) {
    if (decimal.decimals < 0) return std::nullopt;
    Truth truth = WithinRounding(gold, answer, *options.precision, work);
    return Say(truth, "rounded",
               absl::StrCat("equal to ", *options.precision, " digits after the point"),
               absl::StrCat("different within ", *options.precision, " digits after the point"));
  }
  const bool approximate = decimal.approximate || gold.approximate;
  if (decimal.decimals < (approximate ? 0 : 2)) return std::nullopt;
  const Node& other = *WithoutSign(&answer);
  if (other.kind == Kind::kNumber && other.decimals >= 0) {
    if (other.decimals <= decimal.decimals)
      return std::nullopt;  // as rounded as the gold answer: exact
  } else if (!approximate) {
    // An exact form that a terminating decimal equals would have been written out.
    Outcome outcome;
    work->Restart();
    std::optional<Rational> value = ExactValue(answer, work, &outcome);
    if (value) {
      fmpz_t rest;
      fmpz_init_set(rest, value->denominator());
      fmpz_t two, five;
      fmpz_init_set_ui(two, 2);
      fmpz_init_set_ui(five, 5);
      fmpz_remove(rest, rest, two);
      fmpz_remove(rest, rest, five);
      const bool terminates = fmpz_is_one(rest);
      fmpz_clear(rest);
      fmpz_clear(two);
      fmpz_clear(five);
      if (terminates) return std::nullopt;
    }
  }
  Truth truth = WithinRounding(gold, answer, decimal.decimals, work);
  return Say(truth, "rounded",
             absl::StrCat("rounds to the gold answer's ", decimal.decimals, " digits"),
             absl::StrCat("does not round to the gold answer's ", decimal.decimals, " digits"));
}

Comparison CompareExact(const Node& gold, const Node& answer, Work* work) {
  if (int g = InfinitySign(gold), a = InfinitySign(answer); g != 0 || a != 0)
    return Say(g == a ? Truth::kEqual : Truth::kDifferent, "number", "both infinite",
               "only one of them is this infinity");
  work->Restart();
  Outcome og, oa;
  std::optional<Rational> g = ExactValue(gold, work, &og), a;
  if (og == Outcome::kUndefined) return Say(Truth::kUndefined, "", "", "");
  work->Restart();
  a = ExactValue(answer, work, &oa);
  if (oa == Outcome::kUndefined) return Say(Truth::kUndefined, "", "", "");
  if (g && a) {
    if (*g == *a) return Say(Truth::kEqual, "rational", "the same rational number", "");
    return Say(Truth::kDifferent, "rational", "",
               absl::StrCat(a->ToString(), " is not ", g->ToString()));
  }
  work->Restart();
  std::vector<std::string> names = AllVariables(gold, answer);
  if (names.empty() && !HasApply(gold) && !HasApply(answer)) {
    Truth truth = CompareBalls(gold, answer, {}, work);
    if (truth == Truth::kUnknown && SameTree(gold, answer))
      return {true, "identical", "the same expression"};
    return Say(truth, "number", "equal to 128 bits and more", "different numbers");
  }
  Truth truth = CompareExpressions(gold, answer, names, work);
  if (truth == Truth::kUnknown && SameTree(gold, answer))
    return {true, "identical", "the same expression"};
  return Say(truth, "expression", "equal for all values of the variables",
             "different for some values of the variables");
}

// `node` with every \log without a base read to base e.
const Node* NaturalLog(const Node* node, Arena* arena) {
  Node* copy = arena->New(node->kind);
  *copy = *node;
  for (const Node*& arg : copy->args) arg = NaturalLog(arg, arena);
  if (node->bare_log) {
    copy->function = Function::kLn;
    copy->bare_log = false;
    copy->args.resize(1);
  }
  return copy;
}

bool Has(const Node& node, bool (*test)(const Node&)) {
  return test(node) || std::any_of(node.args.begin(), node.args.end(),
                                   [&](const Node* a) { return Has(*a, test); });
}

}  // namespace

int InfinitySign(const Node& node) {
  if (node.kind == Kind::kInfinity) return 1;
  if (node.kind == Kind::kNegative && node.args[0]->kind == Kind::kInfinity) return -1;
  return 0;
}

Comparison CompareScalars(const Node& gold, const Node& answer, const Options& options,
                          Work* work) {
  Comparison exact = CompareExact(gold, answer, work);
  if (exact.equal) return exact;
  if (std::optional<Comparison> rounded = CompareRounded(gold, answer, options, work))
    return *rounded;
  // \log may be the natural logarithm, in both answers or in the one beside the other's \ln.
  auto bare = [](const Node& n) { return n.bare_log; };
  if (Has(gold, bare) || Has(answer, bare)) {
    Arena arena;
    Comparison natural =
        CompareExact(*NaturalLog(&gold, &arena), *NaturalLog(&answer, &arena), work);
    if (natural.equal) return natural;
  }
  return exact;
}

Comparison CompareUpToFactor(const Node& gold, const Node& answer, bool positive, Work* work) {
  constexpr const char* kEqual = "the same up to a constant factor";
  constexpr const char* kDifferent = "not the same up to a constant factor";
  work->Restart();
  std::vector<std::string> names = AllVariables(gold, answer);
  if (!positive) {
    uint64_t g[4], a[4];
    int n = 0;
    bool rational = true;
    for (uint64_t seed = 12; seed < 33 && n < 4; seed += 3) {  // one prime
      Outcome og = EvaluateModulo(gold, seed, work, &g[n]),
              oa = EvaluateModulo(answer, seed, work, &a[n]);
      if (og == Outcome::kUndefined || oa == Outcome::kUndefined) continue;
      if (og != Outcome::kValue || oa != Outcome::kValue) {
        rational = false;
        break;
      }
      ++n;
    }
    if (rational && n == 4) {
      const uint64_t prime = ModuloPrime(12);
      bool same = g[0] != 0 && a[0] != 0;
      for (int i = 1; i < 4 && same; ++i) {
        same = static_cast<unsigned __int128>(g[i]) * a[0] % prime ==
               static_cast<unsigned __int128>(a[i]) * g[0] % prime;
      }
      return Say(same ? Truth::kEqual : Truth::kDifferent, "equation", kEqual, kDifferent);
    }
  }
  Ball ratio, first;
  int points = 0;
  for (uint64_t point = 0; point < 10 && points < 4; ++point) {
    Assignment values = RandomPoint(names, point);
    Ball g, a;
    if (EvaluateBall(gold, values, 256, work, &g) != Outcome::kValue) continue;
    if (EvaluateBall(answer, values, 256, work, &a) != Outcome::kValue) continue;
    if (acb_contains_zero(a.get()) || acb_contains_zero(g.get())) continue;
    if (!acb_is_real(g.get()) || !acb_is_real(a.get())) continue;
    acb_div(ratio.get(), g.get(), a.get(), 256);
    if (acb_rel_accuracy_bits(ratio.get()) < 100) continue;
    if (positive && arb_is_negative(acb_realref(ratio.get())))
      return Say(Truth::kDifferent, "inequality", "", "the other direction");
    if (points++ == 0) {
      acb_set(first.get(), ratio.get());
    } else {
      acb_sub(ratio.get(), ratio.get(), first.get(), 256);
      if (!acb_contains_zero(ratio.get()))
        return Say(Truth::kDifferent, positive ? "inequality" : "equation", "", kDifferent);
    }
  }
  return Say(points >= 3 ? Truth::kEqual : Truth::kUnknown, positive ? "inequality" : "equation",
             kEqual, kDifferent);
}

std::optional<int> Order(const Node& a, const Node& b, Work* work) {
  const int ia = InfinitySign(a), ib = InfinitySign(b);
  if (ia != 0 || ib != 0) return ia == ib ? 0 : ia < ib ? -1 : 1;
  if (!IsScalar(a) || !IsScalar(b)) return std::nullopt;
  work->Restart();
  Rational x, y;
  if (EvaluateExactly(a, {}, work, &x) == Outcome::kValue &&
      EvaluateExactly(b, {}, work, &y) == Outcome::kValue) {
    int order = fmpq_cmp(x.get(), y.get());
    return order < 0 ? -1 : order > 0 ? 1 : 0;
  }
  work->Restart();
  for (int64_t precision : {64, 256}) {
    Ball ba, bb;
    if (EvaluateBall(a, {}, precision, work, &ba) != Outcome::kValue ||
        EvaluateBall(b, {}, precision, work, &bb) != Outcome::kValue)
      return std::nullopt;
    if (!acb_is_real(ba.get()) || !acb_is_real(bb.get())) return std::nullopt;
    if (arb_lt(acb_realref(ba.get()), acb_realref(bb.get()))) return -1;
    if (arb_gt(acb_realref(ba.get()), acb_realref(bb.get()))) return 1;
  }
  Comparison same = CompareScalars(a, b, {}, work);
  if (same.equal) return 0;
  return std::nullopt;
}

}  // namespace e3::math
