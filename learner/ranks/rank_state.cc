#include "learner/ranks/rank_state.h"

#include <ATen/ops/empty.h>
#include <xxhash.h>

#include <algorithm>
#include <memory>

#include "services/runtime/status_macros.h"

namespace e3 {

absl::StatusOr<TrainerState> BroadcastState(Collectives& collectives, int64_t n,
                                            const TrainerState* mine) {
  TrainerState state;
  for (auto part : {&TrainerState::parameters, &TrainerState::first_moment,
                    &TrainerState::second_moment, &TrainerState::reference}) {
    auto values = std::make_shared<at::Tensor>(at::empty({n}, at::kFloat));
    float* floats = values->mutable_data_ptr<float>();
    if (mine != nullptr) std::copy((mine->*part).get(), (mine->*part).get() + n, floats);
    collectives.StartBroadcast(*values, 0);
    E3_RETURN_IF_ERROR(collectives.Wait());
    state.*part = {values, floats};
  }
  return state;
}

uint64_t ParametersChecksum(const Transformer& policy) {
  return XXH3_64bits(policy.parameters(),
                     static_cast<size_t>(policy.layout().size()) * sizeof(float));
}

}  // namespace e3
