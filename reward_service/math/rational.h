// An exact rational number: FLINT's fmpq as a value.
#ifndef E3_REWARD_SERVICE_MATH_RATIONAL_H_
#define E3_REWARD_SERVICE_MATH_RATIONAL_H_

#include <flint/fmpq.h>

#include <cstdint>
#include <string>
#include <utility>

namespace e3::math {

class Rational {
 public:
  Rational() { fmpq_init(value_); }
  explicit Rational(int64_t integer) : Rational() { fmpq_set_si(value_, integer, 1); }
  Rational(const Rational& other) : Rational() { fmpq_set(value_, other.value_); }
  Rational(Rational&& other) noexcept : Rational() { fmpq_swap(value_, other.value_); }
  Rational& operator=(Rational other) noexcept {
    fmpq_swap(value_, other.value_);
    return *this;
  }
  ~Rational() { fmpq_clear(value_); }

  fmpq* get() { return value_; }
  const fmpq* get() const { return value_; }
  const fmpz* numerator() const { return fmpq_numref(value_); }
  const fmpz* denominator() const { return fmpq_denref(value_); }

  bool IsZero() const { return fmpq_is_zero(value_); }
  bool IsInteger() const { return fmpz_is_one(denominator()); }
  int Sign() const { return fmpq_sgn(value_); }
  // Of numerator and denominator together.
  int64_t Bits() const {
    return static_cast<int64_t>(fmpz_bits(numerator()) + fmpz_bits(denominator()));
  }
  // The value as an integer when it is one and |value| < 2^62.
  bool FitsInt(int64_t* out) const {
    if (!IsInteger() || fmpz_bits(numerator()) > 62) return false;
    *out = fmpz_get_si(numerator());
    return true;
  }
  // "3/4"; a description of its size beyond 200 bits.
  std::string ToString() const {
    if (Bits() > 200) return "a number of " + std::to_string(Bits()) + " bits";
    char* text = fmpq_get_str(nullptr, 10, value_);
    std::string result(text);
    flint_free(text);
    return result;
  }

  friend bool operator==(const Rational& a, const Rational& b) {
    return fmpq_equal(a.value_, b.value_);
  }

 private:
  fmpq_t value_;
};

}  // namespace e3::math

#endif  // E3_REWARD_SERVICE_MATH_RATIONAL_H_
