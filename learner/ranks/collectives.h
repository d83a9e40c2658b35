// What the ranks of a learner do together.
#ifndef E3_LEARNER_RANKS_COLLECTIVES_H_
#define E3_LEARNER_RANKS_COLLECTIVES_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>

#include "absl/status/status.h"

namespace e3 {

// One rank's end of a group. Operations are begun in the same order on every rank, run in that
// order beside what the caller computes, and write their tensors in place: those must be
// contiguous, live until Wait() returns, and not be touched meanwhile. Not thread-safe, but for
// Abandon().
class Collectives {
 public:
  virtual ~Collectives() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  // The sum over all ranks, the same bits on each.
  virtual void StartAllReduce(const at::Tensor& values) = 0;
  // The values of rank `root`.
  virtual void StartBroadcast(const at::Tensor& values, int root) = 0;
  // Until all that was begun is done. Unavailable when a rank died, stalled or left: the group is
  // of no use then, and the tensors may hold anything.
  virtual absl::Status Wait() = 0;
  // Makes Wait() give up soon, now and from now on: another rank is known to be lost. From any
  // thread.
  virtual void Abandon() = 0;
};

// The part [first, second) of n elements that belongs to a rank, where they are dealt out in order.
inline std::pair<int64_t, int64_t> RankRange(int64_t n, int rank, int size) {
  return {n * rank / size, n * (rank + 1) / size};
}

}  // namespace e3

#endif  // E3_LEARNER_RANKS_COLLECTIVES_H_
