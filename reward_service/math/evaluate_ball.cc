#include <algorithm>

#include "reward_service/math/evaluate.h"

namespace e3::math {
namespace {

class Complex {
 public:
  Complex(Assignment values, int64_t precision, Work* work)
      : values_(std::move(values)), precision_(precision), work_(work) {}

  Outcome Value(const Node& node, acb_ptr out) {
    if (!work_->Spend(1 + precision_ / 64)) return Outcome::kLimit;
    Outcome outcome = Compute(node, out);
    if (outcome == Outcome::kValue && !acb_is_finite(out)) return Outcome::kUndefined;
    complex_ = complex_ || (outcome == Outcome::kValue && !acb_is_real(out));
    return outcome;
  }

  // Whether a value on the way was not real.
  bool complex() const { return complex_; }

 private:
  Outcome Compute(const Node& node, acb_ptr out) {
    switch (node.kind) {
      case Kind::kNumber:
      case Kind::kBased:
        acb_set_fmpq(out, node.number.get(), precision_);
        return Outcome::kValue;
      case Kind::kPi:
        acb_const_pi(out, precision_);
        return Outcome::kValue;
      case Kind::kE:
        arb_const_e(acb_realref(out), precision_);
        arb_zero(acb_imagref(out));
        return Outcome::kValue;
      case Kind::kI:
        acb_onei(out);
        return Outcome::kValue;
      case Kind::kVariable:
        for (auto it = values_.rbegin(); it != values_.rend(); ++it) {
          if (it->first != node.name) continue;
          acb_set_fmpq(out, it->second.get(), precision_);
          return Outcome::kValue;
        }
        return Outcome::kOther;
      case Kind::kApply: {
        // f(x) := exp(x / 7 + c_f): one value for one function of one argument.
        if (node.args.size() != 1) return Outcome::kOther;
        if (Outcome o = Value(*node.args[0], out); o != Outcome::kValue) return o;
        int64_t code = 1;
        for (char c : node.name) code = (code * 31 + static_cast<unsigned char>(c)) % 1009;
        acb_div_si(out, out, 7, precision_);
        acb_add_si(out, out, code % 5, precision_);
        acb_exp(out, out, precision_);
        return Outcome::kValue;
      }
      case Kind::kSum:
      case Kind::kProduct: {
        if (Outcome o = Value(*node.args[0], out); o != Outcome::kValue) return o;
        Ball term;
        for (size_t i = 1; i < node.args.size(); ++i) {
          if (Outcome o = Value(*node.args[i], term.get()); o != Outcome::kValue) return o;
          if (node.kind == Kind::kSum) {
            acb_add(out, out, term.get(), precision_);
          } else {
            acb_mul(out, out, term.get(), precision_);
          }
        }
        return Outcome::kValue;
      }
      case Kind::kNegative: {
        Outcome o = Value(*node.args[0], out);
        acb_neg(out, out);
        return o;
      }
      case Kind::kQuotient: {
        Ball bottom;
        if (Outcome o = Value(*node.args[0], out); o != Outcome::kValue) return o;
        if (Outcome o = Value(*node.args[1], bottom.get()); o != Outcome::kValue) return o;
        acb_div(out, out, bottom.get(), precision_);
        return Outcome::kValue;
      }
      case Kind::kPower:
        return Power(node, out);
      case Kind::kMeasure: {
        if (Outcome o = Value(*node.args[0], out); o != Outcome::kValue) return o;
        if (node.name == "°") {
          Ball pi;
          acb_const_pi(pi.get(), precision_);
          acb_mul(out, out, pi.get(), precision_);
          acb_div_si(out, out, 180, precision_);
        } else if (node.name == "%") {
          acb_div_si(out, out, 100, precision_);
        }
        return Outcome::kValue;
      }
      case Kind::kFunction:
        return Call(node, out);
      default:
        return Outcome::kOther;
    }
  }

  Outcome Power(const Node& node, acb_ptr out) {
    if (!work_->Spend(8)) return Outcome::kLimit;
    Rational exponent;
    Ball base;
    if (Outcome o = Value(*node.args[0], base.get()); o != Outcome::kValue) return o;
    const bool rational =
        EvaluateExactly(*node.args[1], values_, work_, &exponent) == Outcome::kValue;
    if (rational && exponent.Bits() < 4096) {
      if (exponent.IsInteger()) {
        if (acb_contains_zero(base.get()) && exponent.Sign() <= 0) return Outcome::kUndefined;
        const auto bits = static_cast<int64_t>(fmpz_bits(exponent.numerator()));
        if (bits > (acb_is_real(base.get()) ? 128 : 64)) return Outcome::kLimit;
        if (!work_->Spend(bits * (1 + precision_ / 1024))) return Outcome::kLimit;
        acb_pow_fmpz(out, base.get(), exponent.numerator(), precision_);
        return Outcome::kValue;
      }
      if (fmpz_cmp_si(exponent.denominator(), 1000) < 0) {
        const ulong q = fmpz_get_ui(exponent.denominator());
        if (fmpz_bits(exponent.numerator()) > 64 || !work_->Spend(64 * (1 + precision_ / 1024)))
          return Outcome::kLimit;
        if (Outcome o = Root(base.get(), q, base.get()); o != Outcome::kValue) return o;
        if (acb_contains_zero(base.get()) && exponent.Sign() < 0) return Outcome::kUndefined;
        acb_pow_fmpz(out, base.get(), exponent.numerator(), precision_);
        return Outcome::kValue;
      }
    }
    Ball power;
    if (Outcome o = Value(*node.args[1], power.get()); o != Outcome::kValue) return o;
    if (acb_contains_zero(base.get())) return Outcome::kUndefined;
    if (node.args[0]->kind == Kind::kE) {
      acb_exp(out, power.get(), precision_);
    } else {
      acb_pow(out, base.get(), power.get(), precision_);
    }
    return Outcome::kValue;
  }

  // The real root of what is real and has one, else the principal root.
  Outcome Root(acb_srcptr value, ulong q, acb_ptr out) {
    if (acb_is_real(value) && q % 2 == 1 && arb_is_negative(acb_realref(value))) {
      acb_neg(out, value);
      arb_root_ui(acb_realref(out), acb_realref(out), q, precision_);
      arb_zero(acb_imagref(out));
      acb_neg(out, out);
    } else if (q == 2) {
      acb_sqrt(out, value, precision_);
    } else {
      acb_root_ui(out, value, q, precision_);
    }
    return Outcome::kValue;
  }

  Outcome Call(const Node& node, acb_ptr out) {
    if (node.function == Function::kSigma || node.function == Function::kPi)
      return BigOperator(node, out);
    if (!work_->Spend(10)) return Outcome::kLimit;
    if (Outcome o = Value(*node.args[0], out); o != Outcome::kValue) return o;
    // Sizes beyond which reductions of the argument cost too much.
    if (node.function != Function::kAbs && node.function != Function::kRoot &&
        node.function != Function::kLn && node.function != Function::kLog &&
        Log2Bound(out) > 4096 && node.function != Function::kExp)
      return Outcome::kLimit;
    const bool real = acb_is_real(out);
    switch (node.function) {
      case Function::kRoot: {
        Rational index;
        int64_t n = 0;
        if (EvaluateExactly(*node.args[1], values_, work_, &index) != Outcome::kValue ||
            !index.FitsInt(&n) || n < 1 || n > 100000)
          return Outcome::kOther;
        return n == 1 ? Outcome::kValue : Root(out, static_cast<ulong>(n), out);
      }
      case Function::kAbs:
        acb_abs(acb_realref(out), out, precision_);
        arb_zero(acb_imagref(out));
        return Outcome::kValue;
      case Function::kFloor:
      case Function::kCeiling: {
        if (!real) return Outcome::kOther;
        fmpz_t integer;
        fmpz_init(integer);
        if (node.function == Function::kFloor) {
          arb_floor(acb_realref(out), acb_realref(out), precision_);
        } else {
          arb_ceil(acb_realref(out), acb_realref(out), precision_);
        }
        const bool unique = arb_get_unique_fmpz(integer, acb_realref(out));
        if (unique) arb_set_fmpz(acb_realref(out), integer);
        fmpz_clear(integer);
        return unique ? Outcome::kValue : Outcome::kUndefined;
      }
      case Function::kExp:
        acb_exp(out, out, precision_);
        return Outcome::kValue;
      case Function::kLn:
        acb_log(out, out, precision_);
        return Outcome::kValue;
      case Function::kLog: {
        Ball base;
        if (Outcome o = Value(*node.args[1], base.get()); o != Outcome::kValue) return o;
        acb_log(out, out, precision_);
        acb_log(base.get(), base.get(), precision_);
        acb_div(out, out, base.get(), precision_);
        return Outcome::kValue;
      }
      case Function::kSin:
        acb_sin(out, out, precision_);
        return Outcome::kValue;
      case Function::kCos:
        acb_cos(out, out, precision_);
        return Outcome::kValue;
      case Function::kTan:
        acb_tan(out, out, precision_);
        return Outcome::kValue;
      case Function::kCot:
        acb_cot(out, out, precision_);
        return Outcome::kValue;
      case Function::kSec:
        acb_sec(out, out, precision_);
        return Outcome::kValue;
      case Function::kCsc:
        acb_csc(out, out, precision_);
        return Outcome::kValue;
      case Function::kArcsin:
        acb_asin(out, out, precision_);
        return Outcome::kValue;
      case Function::kArccos:
        acb_acos(out, out, precision_);
        return Outcome::kValue;
      case Function::kArctan:
        acb_atan(out, out, precision_);
        return Outcome::kValue;
      case Function::kSinh:
        acb_sinh(out, out, precision_);
        return Outcome::kValue;
      case Function::kCosh:
        acb_cosh(out, out, precision_);
        return Outcome::kValue;
      case Function::kTanh:
        acb_tanh(out, out, precision_);
        return Outcome::kValue;
      case Function::kArcsinh:
        acb_asinh(out, out, precision_);
        return Outcome::kValue;
      case Function::kArccosh:
        acb_acosh(out, out, precision_);
        return Outcome::kValue;
      case Function::kArctanh:
        acb_atanh(out, out, precision_);
        return Outcome::kValue;
      case Function::kCis:
        acb_mul_onei(out, out);
        acb_exp(out, out, precision_);
        return Outcome::kValue;
      case Function::kFactorial:
        if (Log2Bound(out) > 32 || !work_->Spend(200)) return Outcome::kLimit;
        acb_add_si(out, out, 1, precision_);
        acb_gamma(out, out, precision_);
        return Outcome::kValue;
      case Function::kBinomial: {
        Ball k;
        if (Outcome o = Value(*node.args[1], k.get()); o != Outcome::kValue) return o;
        return Binomial(out, k.get(), out);
      }
      case Function::kMax:
      case Function::kMin: {
        Ball other;
        for (size_t i = 1; i < node.args.size(); ++i) {
          if (Outcome o = Value(*node.args[i], other.get()); o != Outcome::kValue) return o;
          if (!acb_is_real(out) || !acb_is_real(other.get())) return Outcome::kOther;
          if (node.function == Function::kMax) {
            arb_max(acb_realref(out), acb_realref(out), acb_realref(other.get()), precision_);
          } else {
            arb_min(acb_realref(out), acb_realref(out), acb_realref(other.get()), precision_);
          }
        }
        return Outcome::kValue;
      }
      default:
        return Outcome::kOther;
    }
  }

  // Γ(n + 1) / (Γ(k + 1) Γ(n − k + 1))
  Outcome Binomial(acb_srcptr n, acb_srcptr k, acb_ptr out) {
    if (Log2Bound(n) > 32 || Log2Bound(k) > 32 || !work_->Spend(600)) return Outcome::kLimit;
    Ball top, left, right;
    acb_add_si(top.get(), n, 1, precision_);
    acb_add_si(left.get(), k, 1, precision_);
    acb_sub(right.get(), top.get(), k, precision_);
    acb_gamma(top.get(), top.get(), precision_);
    acb_rgamma(left.get(), left.get(), precision_);
    acb_rgamma(right.get(), right.get(), precision_);
    acb_mul(out, top.get(), left.get(), precision_);
    acb_mul(out, out, right.get(), precision_);
    return Outcome::kValue;
  }

  Outcome BigOperator(const Node& node, acb_ptr out) {
    Rational lower, upper;
    if (Outcome o = EvaluateExactly(*node.args[0], values_, work_, &lower); o != Outcome::kValue)
      return o;
    if (Outcome o = EvaluateExactly(*node.args[1], values_, work_, &upper); o != Outcome::kValue)
      return o;
    int64_t from = 0, to = 0;
    if (!lower.FitsInt(&from) || !upper.FitsInt(&to)) return Outcome::kOther;
    if (to - from > work_->limits().steps) return Outcome::kLimit;
    const bool sum = node.function == Function::kSigma;
    acb_set_si(out, sum ? 0 : 1);
    values_.emplace_back(node.name, Rational(0));
    Outcome outcome = Outcome::kValue;
    Ball term;
    for (int64_t i = from; i <= to && outcome == Outcome::kValue; ++i) {
      values_.back().second = Rational(i);
      outcome = Value(*node.args[2], term.get());
      if (outcome != Outcome::kValue) break;
      if (sum) {
        acb_add(out, out, term.get(), precision_);
      } else {
        acb_mul(out, out, term.get(), precision_);
      }
    }
    values_.pop_back();
    return outcome;
  }

  Assignment values_;
  int64_t precision_;
  Work* work_;
  bool complex_ = false;
};

void Collect(const Node& node, std::vector<std::string>* bound, std::vector<std::string>* names) {
  if (node.kind == Kind::kVariable) {
    if (std::find(bound->begin(), bound->end(), node.name) == bound->end())
      names->push_back(node.name);
    return;
  }
  const bool binds = node.kind == Kind::kFunction &&
                     (node.function == Function::kSigma || node.function == Function::kPi);
  if (binds) bound->push_back(node.name);
  for (const Node* arg : node.args) Collect(*arg, bound, names);
  if (binds) bound->pop_back();
}

}  // namespace

Outcome EvaluateBall(const Node& node, const Assignment& values, int64_t precision, Work* work,
                     Ball* out) {
  Complex evaluation(values, precision, work);
  Outcome outcome = evaluation.Value(node, out->get());
  out->set_complex_step(evaluation.complex());
  return outcome;
}

std::vector<std::string> Variables(const Node& node) {
  std::vector<std::string> bound, names;
  Collect(node, &bound, &names);
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

bool HasApply(const Node& node) {
  return node.kind == Kind::kApply || std::any_of(node.args.begin(), node.args.end(),
                                                  [](const Node* a) { return HasApply(*a); });
}

int64_t Log2Bound(acb_srcptr value) {
  mag_t bound;
  mag_init(bound);
  acb_get_mag(bound, value);
  int64_t bits = 0;
  if (mag_is_inf(bound)) {
    bits = kBeyondCounting;
  } else if (!mag_is_special(bound)) {
    const fmpz* exponent = MAG_EXPREF(bound);
    bits = fmpz_fits_si(exponent) ? fmpz_get_si(exponent) : fmpz_sgn(exponent) * kBeyondCounting;
  }
  mag_clear(bound);
  return bits;
}

bool IsScalar(const Node& node) {
  switch (node.kind) {
    case Kind::kNumber:
    case Kind::kPi:
    case Kind::kE:
    case Kind::kI:
    case Kind::kInfinity:
    case Kind::kVariable:
    case Kind::kBased:
      return true;
    case Kind::kSum:
    case Kind::kProduct:
    case Kind::kQuotient:
    case Kind::kNegative:
    case Kind::kPower:
    case Kind::kFunction:
    case Kind::kApply:
    case Kind::kMeasure:
    case Kind::kPlusMinus:
      return std::all_of(node.args.begin(), node.args.end(),
                         [](const Node* a) { return IsScalar(*a); });
    default:
      return false;
  }
}

}  // namespace e3::math
