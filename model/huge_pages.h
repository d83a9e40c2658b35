// Large buffers that are read from end to end, or at random, in every step.
#ifndef E3_MODEL_HUGE_PAGES_H_
#define E3_MODEL_HUGE_PAGES_H_

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>

namespace e3 {

// Asks for 2 MiB pages where the buffer covers them: with 4 KiB pages most of the time of reading a
// KV cache goes into looking up addresses. Only a wish: without it everything works the same.
inline void AdviseHugePages(const void* memory, size_t bytes) {
  constexpr uintptr_t kPage = 2 << 20;
  const uintptr_t at = reinterpret_cast<uintptr_t>(memory);
  const uintptr_t begin = (at + kPage - 1) & ~(kPage - 1), end = (at + bytes) & ~(kPage - 1);
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
}

}  // namespace e3

#endif  // E3_MODEL_HUGE_PAGES_H_
