// Reading and writing safetensors files (https://github.com/huggingface/safetensors). Knows nothing
// of LibTorch.
#ifndef E3_MODEL_SAFETENSORS_H_
#define E3_MODEL_SAFETENSORS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace e3 {

enum class Dtype { kFloat32, kBFloat16, kFloat16, kInt64 };

// A tensor inside a mapped file.
struct TensorView {
  Dtype dtype;
  std::vector<int64_t> shape;
  const char* data;  // little endian, row-major; not necessarily aligned
  int64_t num_elements() const;
};

// The tensors of a model folder: model.safetensors, or the shards that model.safetensors.index.json
// lists; or one file. Views stay valid as long as this object. Headers are checked against the
// file's size. Thread-safe.
class SafetensorsReader {
 public:
  static absl::StatusOr<std::unique_ptr<SafetensorsReader>> OpenFolder(const std::string& folder);
  static absl::StatusOr<std::unique_ptr<SafetensorsReader>> OpenFile(const std::string& path);
  ~SafetensorsReader();

  // NotFound names the tensor and the file.
  absl::StatusOr<TensorView> Get(const std::string& name) const;
  bool Contains(const std::string& name) const { return tensors_.count(name) > 0; }
  const std::map<std::string, TensorView>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
  SafetensorsReader() = default;
  absl::Status Map(const std::string& path);

  struct Mapping {
    void* address;
    size_t size;
  };
  std::string source_;
  std::vector<Mapping> mappings_;
  std::map<std::string, TensorView> tensors_;
  std::map<std::string, std::string> metadata_;
};

// Copies a float tensor as fp32 to `out` (num_elements values), converting bf16 and fp16.
// InvalidArgument for integers.
absl::Status CopyAsFloat(const TensorView& view, float* out);

struct TensorToWrite {
  std::string name;
  std::vector<int64_t> shape;
  Dtype dtype;  // as stored; the source below is fp32 (rounded to nearest even for bf16) unless
                // dtype is kInt64
  const void* data;  // float*, or int64_t* for kInt64
};

// Writes one file; not durable by itself (see WriteFolderDurably).
absl::Status WriteSafetensors(const std::string& path, const std::vector<TensorToWrite>& tensors,
                              const std::map<std::string, std::string>& metadata);

}  // namespace e3

#endif  // E3_MODEL_SAFETENSORS_H_
