#include "learner/ranks/rank_state.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <xxhash.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
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
  const int64_t n = policy.layout().size();
  if (policy.device().is_cpu())
    return XXH3_64bits(policy.parameters(), static_cast<size_t>(n) * sizeof(float));
  constexpr int64_t kChunk = 16 << 20;
  uint64_t sum = 0;
  for (int64_t begin = 0; begin < n; begin += kChunk) {
    const at::Tensor bits = policy.flat_parameters()
                                .narrow(0, begin, std::min(kChunk, n - begin))
                                .view(at::kInt)
                                .to(at::kLong);
    const at::Tensor odd = at::arange(2 * begin + 1, 2 * (begin + bits.numel()), 2, bits.options());
    sum += static_cast<uint64_t>((bits * odd).sum().item<int64_t>());
  }
  return sum;
}

std::string HostIdentity() {
  std::string boot;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  std::error_code error;
  return boot + " " + std::filesystem::read_symlink("/proc/self/ns/net", error).string();
}

}  // namespace e3
