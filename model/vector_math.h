// Eight or sixteen floats at a time: what the compiler cannot vectorise by itself without giving up
// IEEE arithmetic. Everything here is a file's own: files are compiled for different processors,
// and the linker would keep one copy for all of them.
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

static inline Vec Load(const float* p) {
  Vec v;
  memcpy(&v, p, sizeof v);
  return v;
}
static inline void Store(float* p, Vec v) { memcpy(p, &v, sizeof v); }
static inline Vec Splat(float x) { return Vec{x, x, x, x, x, x, x, x}; }
static inline float Sum(Vec v) {
  // A fixed order of summation.
  return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]));
}

// e^x for x <= 0 with a relative error below 2e-7: x = n ln 2 + r, and a polynomial in r (Cephes'
// expf). V: floats; I: as many integers.
template <typename V, typename I>
static inline V ExpOf(V x) {
  const V zero = {};
  x = x < zero - 87.0f ? zero - 87.0f : x;
  const V magic = zero + 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  V n = (x * 1.44269504f + magic) - magic;
  V r = x - n * 0.693359375f - n * -2.12194440e-4f;
  V p = zero + 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  I exponent = (__builtin_convertvector(n, I) + 127) << 23;
  V scale;
  memcpy(&scale, &exponent, sizeof scale);
  return p * scale;
}
static inline Vec Exp(Vec x) { return ExpOf<Vec, IntVec>(x); }

// Sixteen floats: one AVX-512 register, or two of AVX. Element by element the same bits.
#ifdef __AVX512F__
typedef float Wide __attribute__((vector_size(64)));
typedef int32_t IntWide __attribute__((vector_size(64)));
static inline Wide LoadWide(const float* p) {
  Wide v;
  memcpy(&v, p, sizeof v);
  return v;
}
static inline void Store(float* p, Wide v) { memcpy(p, &v, sizeof v); }
static inline Wide SplatWide(float x) { return Wide{} + x; }
static inline Wide Exp(Wide x) { return ExpOf<Wide, IntWide>(x); }
#else
struct Wide {
  Vec low, high;
};
static inline Wide LoadWide(const float* p) { return {Load(p), Load(p + kLanes)}; }
static inline void Store(float* p, Wide v) {
  Store(p, v.low);
  Store(p + kLanes, v.high);
}
static inline Wide SplatWide(float x) { return {Splat(x), Splat(x)}; }
static inline Wide Exp(Wide x) { return {Exp(x.low), Exp(x.high)}; }
static inline Wide operator*(Wide a, Wide b) { return {a.low * b.low, a.high * b.high}; }
static inline Wide operator-(Wide a, Wide b) { return {a.low - b.low, a.high - b.high}; }
#endif
constexpr int64_t kWideLanes = 16;

// sum + a * b.
static inline Wide MultiplyAdd(Wide a, Wide b, Wide sum) {
#ifdef __AVX512F__
  return sum + a * b;
#else
  return {sum.low + a.low * b.low, sum.high + a.high * b.high};
#endif
}

}  // namespace e3

#endif  // E3_MODEL_VECTOR_MATH_H_
