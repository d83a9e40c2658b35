#include "rollout_server/transformer_model.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "services/runtime/status_macros.h"

namespace e3 {

absl::StatusOr<std::unique_ptr<TransformerModel>> TransformerModel::Load(const std::string& folder,
                                                                         c10::Device device,
                                                                         int64_t kv_cache_mib) {
  auto served = std::unique_ptr<TransformerModel>(new TransformerModel);
  E3_ASSIGN_OR_RETURN(served->model_, Transformer::Load(folder, device));
  if (absl::StatusOr<std::unique_ptr<PromptEncoder>> encoder = PromptEncoder::Load(folder);
      encoder.ok()) {
    served->encoder_ = *std::move(encoder);
  }
  const int64_t block = TransformerRunner::BlockBytes(*served->model_);
  const int64_t blocks =
      std::min<int64_t>((kv_cache_mib << 20) / block, std::numeric_limits<int32_t>::max());
  if (blocks < 1) {
    return absl::ResourceExhaustedError(absl::StrCat("a KV cache of ", kv_cache_mib,
                                                     " MiB has no room for a block of ", block,
                                                     " bytes of this model (--kv-cache-mib)"));
  }
  served->num_blocks_ = static_cast<int32_t>(blocks);
  served->runner_ = std::make_unique<TransformerRunner>(served->model_.get(), served->num_blocks_);
  return served;
}

void TransformerModel::SetParameters(const std::vector<float>& parameters) {
  model_->UpdateParameters([&](float* to) { std::copy(parameters.begin(), parameters.end(), to); });
}

}  // namespace e3
