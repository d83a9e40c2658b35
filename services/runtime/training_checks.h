// Which settings a stage can be trained with: the job file says it with line and column, the
// learner to whoever asks it.
#ifndef E3_SERVICES_RUNTIME_TRAINING_CHECKS_H_
#define E3_SERVICES_RUNTIME_TRAINING_CHECKS_H_

#include <optional>
#include <string>

#include "e3/v1/job_spec.pb.h"

namespace e3 {

struct BadSetting {
  std::string field;  // of the message
  std::string why;    // follows the field's name in a sentence
};

// The first setting, in a fixed order, that cannot be; nothing when all can. The message has its
// defaults filled in.
std::optional<BadSetting> CheckTraining(const v1::Training& training);
// Training needs draws from the policy itself: no truncation, and a temperature above 0.
std::optional<BadSetting> CheckTrainingSampling(const v1::Sampling& sampling);

}  // namespace e3

#endif  // E3_SERVICES_RUNTIME_TRAINING_CHECKS_H_
