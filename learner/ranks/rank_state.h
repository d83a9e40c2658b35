// A trainer's state from the leader to all ranks, and the check that they still agree.
#ifndef E3_LEARNER_RANKS_RANK_STATE_H_
#define E3_LEARNER_RANKS_RANK_STATE_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "learner/ranks/collectives.h"
#include "learner/trainer.h"

namespace e3 {

// The state of rank 0, `n` floats a part, on every rank. `mine` is rank 0's; null elsewhere.
absl::StatusOr<TrainerState> BroadcastState(Collectives& collectives, int64_t n,
                                            const TrainerState* mine);

// Of the parameters' bits, where they are: XXH3-64 on a CPU, a weighted sum on other devices.
uint64_t ParametersChecksum(const Transformer& policy);

// The same for processes that share a machine's memory and its network; others are taken for
// strangers, such as those in pods of their own.
std::string HostIdentity();

}  // namespace e3

#endif  // E3_LEARNER_RANKS_RANK_STATE_H_
