// Scalars for TensorBoard: `tensorboard --logdir OUTPUT`.
#ifndef E3_LEARNER_SERVICE_EVENT_FILE_H_
#define E3_LEARNER_SERVICE_EVENT_FILE_H_

#include <cstdint>
#include <cstdio>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "tensorboard/event.pb.h"

namespace e3 {

// An event file (TFRecord framing) that grows by one record a step. Not thread-safe.
class EventFile {
 public:
  // A new file in `folder`, which is made. What earlier files there say of `first_step` and later
  // steps is void: TensorBoard leaves it out.
  static absl::StatusOr<std::unique_ptr<EventFile>> Create(const std::string& folder,
                                                           uint64_t first_step);

  // Written when it returns, not synced to the disk.
  absl::Status Add(uint64_t step, const std::map<std::string, double>& scalars);

 private:
  struct Close {
    void operator()(FILE* file) const { fclose(file); }
  };
  EventFile(std::string path, FILE* file) : path_(std::move(path)), file_(file) {}
  absl::Status Write(tensorboard::Event event);

  std::string path_;
  std::unique_ptr<FILE, Close> file_;
};

}  // namespace e3

#endif  // E3_LEARNER_SERVICE_EVENT_FILE_H_
