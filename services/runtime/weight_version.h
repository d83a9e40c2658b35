// Versions of a policy, as every process that handles weights compares them.
#ifndef E3_SERVICES_RUNTIME_WEIGHT_VERSION_H_
#define E3_SERVICES_RUNTIME_WEIGHT_VERSION_H_

#include "e3/v1/rollouts.pb.h"

namespace e3 {

inline bool SameVersion(const v1::WeightVersion& a, const v1::WeightVersion& b) {
  return a.step() == b.step() && a.epoch() == b.epoch() && a.job() == b.job();
}

}  // namespace e3

#endif  // E3_SERVICES_RUNTIME_WEIGHT_VERSION_H_
