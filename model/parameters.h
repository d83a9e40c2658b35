// Where each tensor of a model lies in one flat fp32 buffer. The optimizer updates, the ranks
// reduce and the learner publishes that buffer as a whole; the transformer computes on views of it.
// Knows nothing of LibTorch.
#ifndef E3_MODEL_PARAMETERS_H_
#define E3_MODEL_PARAMETERS_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "model/config.h"
#include "model/safetensors.h"

namespace e3 {

struct ParameterSlot {
  std::string name;  // Hugging Face name
  std::vector<int64_t> shape;
  int64_t offset;  // in elements
  int64_t size;    // in elements
  bool decay;      // weight decay applies: matrices yes, norms and biases no
};

// Slots lie in order without gaps. The q, k and v projections of a layer (and their biases), and
// its gate and up projections, are neighbours, so that each group is also one matrix.
class ParameterLayout {
 public:
  explicit ParameterLayout(const ModelConfig& config);

  const std::vector<ParameterSlot>& slots() const { return slots_; }
  int64_t size() const { return size_; }
  // Aborts on an unknown name: names come from code.
  const ParameterSlot& slot(const std::string& name) const;

 private:
  void Add(std::string name, std::vector<int64_t> shape, bool decay);

  std::vector<ParameterSlot> slots_;
  std::map<std::string, size_t> by_name_;
  int64_t size_ = 0;
};

// Fills `out` (layout.size() floats) from the safetensors of `folder`. InvalidArgument names a
// tensor that is missing or has another shape.
absl::Status LoadParameters(const std::string& folder, const ModelConfig& config,
                            const ParameterLayout& layout, float* out);

// Writes a folder that transformers opens: model.safetensors with `dtype`, and the configuration
// and tokenizer files of `source_folder`. Into an existing folder; see WriteFolderDurably.
absl::Status SaveModel(const std::string& folder, const std::string& source_folder,
                       const ParameterLayout& layout, const float* parameters, Dtype dtype);

}  // namespace e3

#endif  // E3_MODEL_PARAMETERS_H_
