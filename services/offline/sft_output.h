// Where a supervised fine-tuning writes.
#ifndef E3_SERVICES_OFFLINE_SFT_OUTPUT_H_
#define E3_SERVICES_OFFLINE_SFT_OUTPUT_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "e3/v1/sft_spec.pb.h"

namespace e3 {

// The folder of the checkpoints, beside the output and named like it with `.checkpoints` behind.
// Only one process has it at a time.
class SftOutput {
 public:
  // Makes the folder, so that a place where nothing can be written is known before anything is
  // computed. FailedPrecondition when the output exists with something in it (unless `overwrite`),
  // when it is or holds the model, the data or `job_file`, which writing it would replace, or when
  // another process writes there.
  static absl::StatusOr<std::unique_ptr<SftOutput>> Open(const v1::SftSpec& spec,
                                                         const std::string& job_file,
                                                         bool overwrite);
  ~SftOutput();

  const std::string& checkpoints() const { return checkpoints_; }
  // Removes the checkpoints: the output is written.
  void Finish();

 private:
  SftOutput() = default;
  std::string checkpoints_, lock_path_;
  int lock_ = -1;
};

}  // namespace e3

#endif  // E3_SERVICES_OFFLINE_SFT_OUTPUT_H_
