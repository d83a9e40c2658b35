#include <flint/fmpz.h>

#include "reward_service/math/evaluate.h"

namespace e3::math {
namespace {

// Three primes, taken in turn: a multiple of one of them in an answer is no zero of the others.
constexpr uint64_t kPrimes[] = {(uint64_t{1} << 61) - 1, (uint64_t{1} << 60) - 93,
                                (uint64_t{1} << 59) - 55};

uint64_t Mix(uint64_t x) {  // splitmix64
  x += 0x9E3779B97F4A7C15;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

class Modular {
 public:
  Modular(uint64_t seed, uint64_t prime, Work* work) : seed_(seed), prime_(prime), work_(work) {}

  Outcome Value(const Node& node, uint64_t* out) {
    if (!work_->Spend(1)) return Outcome::kLimit;
    uint64_t a = 0, b = 0;
    switch (node.kind) {
      case Kind::kNumber:
      case Kind::kBased: {
        const uint64_t bottom = fmpz_fdiv_ui(node.number.denominator(), prime_);
        if (bottom == 0) return Outcome::kOther;
        a = fmpz_fdiv_ui(node.number.numerator(), prime_);
        *out = bottom == 1 ? a : Multiply(a, Invert(bottom));
        return Outcome::kValue;
      }
      case Kind::kPi:  // transcendental: as good as a variable
        *out = Reduce(Mix(seed_ ^ 0x3141592653589793));
        return Outcome::kValue;
      case Kind::kVariable: {
        uint64_t hash = seed_;
        for (char c : node.name) hash = Mix(hash ^ static_cast<unsigned char>(c));
        *out = Reduce(hash);
        return Outcome::kValue;
      }
      case Kind::kApply: {
        uint64_t hash = seed_;
        for (char c : node.name) hash = Mix(hash ^ static_cast<unsigned char>(c));
        for (const Node* arg : node.args) {
          if (Outcome o = Value(*arg, &a); o != Outcome::kValue) return o;
          hash = Mix(hash ^ a);
        }
        *out = Reduce(hash);
        return Outcome::kValue;
      }
      case Kind::kSum:
      case Kind::kProduct:
        if (Outcome o = Value(*node.args[0], out); o != Outcome::kValue) return o;
        for (size_t i = 1; i < node.args.size(); ++i) {
          if (Outcome o = Value(*node.args[i], &a); o != Outcome::kValue) return o;
          *out = node.kind == Kind::kSum ? Add(*out, a) : Multiply(*out, a);
        }
        return Outcome::kValue;
      case Kind::kNegative:
        if (Outcome o = Value(*node.args[0], &a); o != Outcome::kValue) return o;
        *out = a == 0 ? 0 : prime_ - a;
        return Outcome::kValue;
      case Kind::kQuotient:
        if (Outcome o = Value(*node.args[0], &a); o != Outcome::kValue) return o;
        if (Outcome o = Value(*node.args[1], &b); o != Outcome::kValue) return o;
        if (b == 0) return Outcome::kUndefined;
        *out = Multiply(a, Invert(b));
        return Outcome::kValue;
      case Kind::kPower: {
        Rational exponent;
        if (Outcome o = EvaluateExactly(*node.args[1], {}, work_, &exponent); o != Outcome::kValue)
          return Outcome::kOther;
        int64_t n = 0;
        if (!exponent.FitsInt(&n) || n > 10000 || n < -10000) return Outcome::kOther;
        if (Outcome o = Value(*node.args[0], &a); o != Outcome::kValue) return o;
        if (a == 0 && n <= 0) return Outcome::kUndefined;
        *out = Raise(n < 0 ? Invert(a) : a, static_cast<uint64_t>(n < 0 ? -n : n));
        return Outcome::kValue;
      }
      case Kind::kFunction: {
        // Without variables it may be a rational number.
        Rational value;
        if (node.function == Function::kRoot || node.function == Function::kFactorial ||
            node.function == Function::kBinomial) {
          if (EvaluateExactly(node, {}, work_, &value) == Outcome::kValue) {
            const uint64_t bottom = fmpz_fdiv_ui(value.denominator(), prime_);
            if (bottom == 0) return Outcome::kOther;
            *out = Multiply(fmpz_fdiv_ui(value.numerator(), prime_), Invert(bottom));
            return Outcome::kValue;
          }
        }
        return Outcome::kOther;
      }
      default:
        return Outcome::kOther;
    }
  }

 private:
  uint64_t Reduce(uint64_t x) const { return x % prime_; }
  uint64_t Add(uint64_t a, uint64_t b) const { return Reduce(a + b); }
  uint64_t Multiply(uint64_t a, uint64_t b) const {
    return static_cast<uint64_t>(static_cast<unsigned __int128>(a) * b % prime_);
  }
  uint64_t Raise(uint64_t base, uint64_t exponent) const {
    uint64_t result = 1;
    for (; exponent > 0; exponent >>= 1, base = Multiply(base, base)) {
      if (exponent & 1) result = Multiply(result, base);
    }
    return result;
  }
  uint64_t Invert(uint64_t a) const { return Raise(a, prime_ - 2); }

  uint64_t seed_;
  const uint64_t prime_;
  Work* work_;
};

}  // namespace

uint64_t ModuloPrime(uint64_t seed) { return kPrimes[seed % 3]; }

Outcome EvaluateModulo(const Node& node, uint64_t seed, Work* work, uint64_t* out) {
  return Modular(Mix(seed), kPrimes[seed % 3], work).Value(node, out);
}

}  // namespace e3::math
