// Eight floats at a time: what the compiler cannot vectorise by itself without giving up IEEE
// arithmetic.
#ifndef E3_MODEL_VECTOR_MATH_H_
#define E3_MODEL_VECTOR_MATH_H_

#include <cstdint>
#include <cstring>

namespace e3 {

// Eight floats; one AVX register. Loads and stores go through memcpy, since rows need not be
// aligned.
typedef float Vec __attribute__((vector_size(32)));
typedef int32_t IntVec __attribute__((vector_size(32)));
constexpr int64_t kLanes = 8;

inline Vec Load(const float* p) {
  Vec v;
  memcpy(&v, p, sizeof v);
  return v;
}
inline void Store(float* p, Vec v) { memcpy(p, &v, sizeof v); }
inline Vec Splat(float x) { return Vec{x, x, x, x, x, x, x, x}; }
inline float Sum(Vec v) {
  // A fixed order of summation.
  return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

// e^x for x <= 0 with a relative error below 2e-7: x = n ln 2 + r, and a polynomial in r (Cephes'
// expf).
inline Vec Exp(Vec x) {
  x = x < Splat(-87.0f) ? Splat(-87.0f) : x;
  const Vec magic = Splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  Vec n = (x * Splat(1.44269504f) + magic) - magic;
  Vec r = x - n * Splat(0.693359375f) - n * Splat(-2.12194440e-4f);
  Vec p = Splat(1.9875691500e-4f);
  p = p * r + Splat(1.3981999507e-3f);
  p = p * r + Splat(8.3334519073e-3f);
  p = p * r + Splat(4.1665795894e-2f);
  p = p * r + Splat(1.6666665459e-1f);
  p = p * r + Splat(5.0000001201e-1f);
  p = p * r * r + r + Splat(1.0f);
  IntVec exponent = (__builtin_convertvector(n, IntVec) + 127) << 23;
  Vec scale;
  memcpy(&scale, &exponent, sizeof scale);
  return p * scale;
}

}  // namespace e3

#endif  // E3_MODEL_VECTOR_MATH_H_
