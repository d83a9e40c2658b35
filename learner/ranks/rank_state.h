// A trainer's state from the leader to all ranks, and the check that they still agree.
#ifndef E3_LEARNER_RANKS_RANK_STATE_H_
#define E3_LEARNER_RANKS_RANK_STATE_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "learner/ranks/collectives.h"
#include "learner/trainer.h"

namespace e3 {

// The state of rank 0, `n` floats a part, on every rank. `mine` is rank 0's; null elsewhere.
absl::StatusOr<TrainerState> BroadcastState(Collectives& collectives, int64_t n,
                                            const TrainerState* mine);

// XXH3-64 of the parameters.
uint64_t ParametersChecksum(const Transformer& policy);

}  // namespace e3

#endif  // E3_LEARNER_RANKS_RANK_STATE_H_
