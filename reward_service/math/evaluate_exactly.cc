#include <flint/fmpz.h>

#include "reward_service/math/evaluate.h"

namespace e3::math {
namespace {

const Rational* Find(const Assignment& values, const std::string& name) {
  for (auto it = values.rbegin(); it != values.rend(); ++it) {
    if (it->first == name) return &it->second;
  }
  return nullptr;
}

class Exact {
 public:
  Exact(Assignment values, Work* work) : values_(std::move(values)), work_(work) {}

  Outcome Value(const Node& node, Rational* out) {
    if (!work_->Spend(1)) return Outcome::kLimit;
    switch (node.kind) {
      case Kind::kNumber:
      case Kind::kBased:
        *out = node.number;
        return Check(*out);
      case Kind::kVariable: {
        const Rational* value = Find(values_, node.name);
        if (value == nullptr) return Outcome::kOther;
        *out = *value;
        return Outcome::kValue;
      }
      case Kind::kSum:
      case Kind::kProduct: {
        if (Outcome o = Value(*node.args[0], out); o != Outcome::kValue) return o;
        Rational term;
        for (size_t i = 1; i < node.args.size(); ++i) {
          if (Outcome o = Value(*node.args[i], &term); o != Outcome::kValue) return o;
          if (node.kind == Kind::kSum) {
            fmpq_add(out->get(), out->get(), term.get());
          } else {
            fmpq_mul(out->get(), out->get(), term.get());
          }
          if (Outcome o = Check(*out); o != Outcome::kValue) return o;
        }
        return Outcome::kValue;
      }
      case Kind::kNegative: {
        Outcome o = Value(*node.args[0], out);
        fmpq_neg(out->get(), out->get());
        return o;
      }
      case Kind::kQuotient: {
        Rational bottom;
        if (Outcome o = Value(*node.args[0], out); o != Outcome::kValue) return o;
        if (Outcome o = Value(*node.args[1], &bottom); o != Outcome::kValue) return o;
        if (bottom.IsZero()) return Outcome::kUndefined;
        fmpq_div(out->get(), out->get(), bottom.get());
        return Check(*out);
      }
      case Kind::kPower: {
        Rational base, exponent;
        if (Outcome o = Value(*node.args[0], &base); o != Outcome::kValue) return o;
        if (Outcome o = Value(*node.args[1], &exponent); o != Outcome::kValue) return o;
        return Power(base, exponent, out);
      }
      case Kind::kMeasure: {
        Outcome o = Value(*node.args[0], out);
        if (o != Outcome::kValue) return o;
        if (node.name == "°") return out->IsZero() ? Outcome::kValue : Outcome::kOther;
        if (node.name == "%") {
          Rational hundred(100);
          fmpq_div(out->get(), out->get(), hundred.get());
        }
        return Outcome::kValue;
      }
      case Kind::kFunction:
        return Call(node, out);
      default:
        return Outcome::kOther;
    }
  }

 private:
  // Charges for the size of a result; a result beyond the limit ends the evaluation.
  Outcome Check(const Rational& value) {
    const int64_t bits = value.Bits();
    if (bits > work_->limits().bits || !work_->Spend(bits >> (value.IsInteger() ? 8 : 5)))
      return Outcome::kLimit;
    return Outcome::kValue;
  }

  Outcome Power(const Rational& base, const Rational& exponent, Rational* out) {
    if (base.IsZero()) {
      if (exponent.Sign() <= 0) return Outcome::kUndefined;
      *out = Rational(0);
      return Outcome::kValue;
    }
    int64_t n = 0;
    if (exponent.FitsInt(&n)) {
      if (base.IsInteger() && fmpz_is_pm1(base.numerator())) {
        *out = Rational(n % 2 == 0 ? 1 : base.Sign());
        return Outcome::kValue;
      }
      // Bounds of the result before it is made.
      const int64_t limit = work_->limits().bits;
      if (n > limit || n < -limit || (base.Bits() - 1) * (n < 0 ? -n : n) > 2 * limit)
        return Outcome::kLimit;
      fmpq_pow_si(out->get(), base.get(), n);
      return Check(*out);
    }
    if (base.IsInteger() && fmpz_is_one(base.numerator())) {
      *out = Rational(1);
      return Outcome::kValue;
    }
    if (!fmpz_fits_si(exponent.numerator()) || !fmpz_fits_si(exponent.denominator()))
      return Outcome::kOther;
    const int64_t q = fmpz_get_si(exponent.denominator());
    Rational root;
    if (Outcome o = Root(base, q, &root); o != Outcome::kValue) return o;
    Rational p;
    fmpz_set(fmpq_numref(p.get()), exponent.numerator());
    return Power(root, p, out);
  }

  // The real q-th root when it is rational; of negative numbers for odd q only.
  Outcome Root(const Rational& value, int64_t q, Rational* out) {
    if (q < 2 || q > 1000 || !work_->Spend(value.Bits() >> 4)) return Outcome::kOther;
    if (value.Sign() < 0 && q % 2 == 0) return Outcome::kOther;
    Rational magnitude = value;
    if (value.Sign() < 0) fmpq_neg(magnitude.get(), magnitude.get());
    const bool exact = fmpz_root(fmpq_numref(out->get()), magnitude.numerator(), q) != 0 &&
                       fmpz_root(fmpq_denref(out->get()), magnitude.denominator(), q) != 0;
    if (!exact) {
      *out = Rational(0);
      return Outcome::kOther;
    }
    if (value.Sign() < 0) fmpq_neg(out->get(), out->get());
    return Outcome::kValue;
  }

  Outcome Call(const Node& node, Rational* out) {
    if (node.function == Function::kSigma || node.function == Function::kPi)
      return BigOperator(node, out);
    std::vector<Rational> args(node.args.size());
    for (size_t i = 0; i < args.size(); ++i) {
      if (Outcome o = Value(*node.args[i], &args[i]); o != Outcome::kValue) return o;
    }
    int64_t n = 0, k = 0;
    switch (node.function) {
      case Function::kRoot:
        if (!args[1].FitsInt(&n)) return Outcome::kOther;
        if (args[0].IsZero() && n > 0) {
          *out = args[0];
          return Outcome::kValue;
        }
        return Root(args[0], n, out);
      case Function::kAbs:
        *out = args[0];
        if (out->Sign() < 0) fmpq_neg(out->get(), out->get());
        return Outcome::kValue;
      case Function::kFloor:
      case Function::kCeiling:
        *out = Rational(0);
        if (node.function == Function::kFloor) {
          fmpz_fdiv_q(fmpq_numref(out->get()), args[0].numerator(), args[0].denominator());
        } else {
          fmpz_cdiv_q(fmpq_numref(out->get()), args[0].numerator(), args[0].denominator());
        }
        return Outcome::kValue;
      case Function::kFactorial:
        if (!args[0].IsInteger()) return Outcome::kOther;
        if (args[0].Sign() < 0) return Outcome::kUndefined;
        // log2 n! > n (log2 n − 1.45): 10,000! has 118,458 bits.
        if (!args[0].FitsInt(&n) || n > work_->limits().bits / 13) return Outcome::kLimit;
        *out = Rational(0);
        fmpz_fac_ui(fmpq_numref(out->get()), static_cast<ulong>(n));
        return Check(*out);
      case Function::kDoubleFactorial:
        if (!args[0].IsInteger() || args[0].Sign() < 0) return Outcome::kOther;
        if (!args[0].FitsInt(&n) || n > 3000) return Outcome::kLimit;
        *out = Rational(1);
        for (; n > 1; n -= 2) fmpz_mul_si(fmpq_numref(out->get()), out->numerator(), n);
        return Check(*out);
      case Function::kBinomial:
        if (!args[0].IsInteger() || !args[1].IsInteger()) return Outcome::kOther;
        if (args[0].Sign() < 0) return Outcome::kOther;
        if (!args[0].FitsInt(&n) || !args[1].FitsInt(&k)) return Outcome::kLimit;
        *out = Rational(0);
        if (k < 0 || k > n) return Outcome::kValue;
        if (std::min(k, n - k) > 3000) {
          if (n > 20000) return Outcome::kLimit;
        } else if (std::min(k, n - k) * 62 > work_->limits().bits && n > 20000) {
          return Outcome::kLimit;
        }
        fmpz_bin_uiui(fmpq_numref(out->get()), static_cast<ulong>(n),
                      static_cast<ulong>(std::min(k, n - k)));
        return Check(*out);
      case Function::kMax:
      case Function::kMin:
        *out = args[0];
        for (const Rational& a : args) {
          int order = fmpq_cmp(a.get(), out->get());
          if (node.function == Function::kMax ? order > 0 : order < 0) *out = a;
        }
        return Outcome::kValue;
      case Function::kGcd:
      case Function::kLcm:
        for (const Rational& a : args) {
          if (!a.IsInteger()) return Outcome::kOther;
        }
        *out = args[0];
        for (const Rational& a : args) {
          if (node.function == Function::kGcd) {
            fmpz_gcd(fmpq_numref(out->get()), out->numerator(), a.numerator());
          } else {
            fmpz_lcm(fmpq_numref(out->get()), out->numerator(), a.numerator());
          }
          if (Outcome o = Check(*out); o != Outcome::kValue) return o;
        }
        return Outcome::kValue;
      case Function::kExp:
        if (args[0].IsZero()) {
          *out = Rational(1);
          return Outcome::kValue;
        }
        return Outcome::kOther;
      default:
        return Outcome::kOther;
    }
  }

  Outcome BigOperator(const Node& node, Rational* out) {
    Rational lower, upper, term;
    if (Outcome o = Value(*node.args[0], &lower); o != Outcome::kValue) return o;
    if (Outcome o = Value(*node.args[1], &upper); o != Outcome::kValue) return o;
    int64_t from = 0, to = 0;
    if (!lower.FitsInt(&from) || !upper.FitsInt(&to)) return Outcome::kOther;
    if (to > from && to - from > work_->limits().steps) return Outcome::kLimit;
    const bool sum = node.function == Function::kSigma;
    *out = Rational(sum ? 0 : 1);
    values_.emplace_back(node.name, Rational(0));
    Outcome outcome = Outcome::kValue;
    for (int64_t i = from; i <= to && outcome == Outcome::kValue; ++i) {
      values_.back().second = Rational(i);
      outcome = Value(*node.args[2], &term);
      if (outcome != Outcome::kValue) break;
      if (sum) {
        fmpq_add(out->get(), out->get(), term.get());
      } else {
        fmpq_mul(out->get(), out->get(), term.get());
      }
      outcome = Check(*out);
    }
    values_.pop_back();
    return outcome;
  }

  Assignment values_;
  Work* work_;
};

}  // namespace

Outcome EvaluateExactly(const Node& node, const Assignment& values, Work* work, Rational* out) {
  return Exact(values, work).Value(node, out);
}

}  // namespace e3::math
