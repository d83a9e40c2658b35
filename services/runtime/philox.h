// Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as
// easy as 1, 2, 3").
//
// A draw is a pure function of what it is for (its key and counter), so it does not depend on what
// was drawn before, on the batch, or on the machine.
#ifndef E3_SERVICES_RUNTIME_PHILOX_H_
#define E3_SERVICES_RUNTIME_PHILOX_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

namespace e3 {

inline std::array<uint32_t, 4> Philox(uint64_t key, uint64_t counter_low, uint64_t counter_high) {
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  std::array<uint32_t, 4> c = {
      static_cast<uint32_t>(counter_low), static_cast<uint32_t>(counter_low >> 32),
      static_cast<uint32_t>(counter_high), static_cast<uint32_t>(counter_high >> 32)};
  for (int round = 0; round < 10; ++round) {
    uint64_t p0 = uint64_t{0xD2511F53} * c[0], p1 = uint64_t{0xCD9E8D57} * c[2];
    c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<uint32_t>(p0)};
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return c;
}

// A new seed for a purpose: Derive(seed, step, prompt) and the like.
inline uint64_t DeriveSeed(uint64_t seed, uint64_t a, uint64_t b = 0) {
  std::array<uint32_t, 4> r = Philox(seed, a, b);
  return (static_cast<uint64_t>(r[0]) << 32) | r[1];
}

// Uniform in [0, 1) with 53 bits.
inline double UniformDouble(uint64_t key, uint64_t counter_low, uint64_t counter_high) {
  std::array<uint32_t, 4> r = Philox(key, counter_low, counter_high);
  uint64_t bits = (static_cast<uint64_t>(r[0]) << 32) | r[1];
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

// A stream of draws for generators that need many.
class PhiloxStream {
 public:
  explicit PhiloxStream(uint64_t seed, uint64_t stream = 0) : seed_(seed), stream_(stream) {}
  double Uniform() { return UniformDouble(seed_, next_++, stream_); }
  // Uniform in [0, n); n > 0.
  int64_t Below(int64_t n) { return static_cast<int64_t>(Uniform() * static_cast<double>(n)); }
  // Uniform in [low, high].
  int64_t Between(int64_t low, int64_t high) { return low + Below(high - low + 1); }
  template <typename T>
  void Shuffle(std::vector<T>& items) {
    for (size_t i = items.size(); i > 1; --i)
      std::swap(items[i - 1], items[static_cast<size_t>(Below(static_cast<int64_t>(i)))]);
  }

 private:
  uint64_t seed_, stream_;
  uint64_t next_ = 0;
};

}  // namespace e3

#endif  // E3_SERVICES_RUNTIME_PHILOX_H_
