// The served model that is a Transformer.
#ifndef E3_ROLLOUT_SERVER_TRANSFORMER_MODEL_H_
#define E3_ROLLOUT_SERVER_TRANSFORMER_MODEL_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/transformer.h"
#include "rollout_server/served_model.h"
#include "rollout_server/transformer_runner.h"

namespace e3 {

class TransformerModel final : public ServedModel {
 public:
  // A Hugging Face folder on `device`, with a KV cache of `kv_cache_mib` there. ResourceExhausted
  // when that is not even a block.
  static absl::StatusOr<std::unique_ptr<TransformerModel>> Load(const std::string& folder,
                                                                c10::Device device,
                                                                int64_t kv_cache_mib);

  ModelRunner& runner() override { return *runner_; }
  int32_t num_blocks() const override { return num_blocks_; }
  int64_t context_length() const override { return model_->config().context_length; }
  const std::vector<uint32_t>& eos_token_ids() const override {
    return model_->config().eos_token_ids;
  }
  const std::vector<ParameterSlot>& slots() const override { return model_->layout().slots(); }
  void SetParameters(const std::vector<float>& parameters) override;
  std::shared_ptr<const PromptEncoder> encoder() const override { return encoder_; }

 private:
  TransformerModel() = default;
  std::unique_ptr<Transformer> model_;
  std::unique_ptr<TransformerRunner> runner_;
  std::shared_ptr<const PromptEncoder> encoder_;
  int32_t num_blocks_ = 0;
};

}  // namespace e3

#endif  // E3_ROLLOUT_SERVER_TRANSFORMER_MODEL_H_
