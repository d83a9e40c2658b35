// Products of long integers.
#ifndef E3_REWARD_SERVICE_MULTIPLICATION_MULTIPLICATION_VERIFIER_H_
#define E3_REWARD_SERVICE_MULTIPLICATION_MULTIPLICATION_VERIFIER_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "reward_service/verdict.h"

namespace e3 {

// Judges the last box of `response` against a × b. InvalidArgument when a or b is not a whole
// number of at most 1,000 digits. Thread-safe.
absl::StatusOr<Verdict> VerifyMultiplication(absl::string_view response, absl::string_view a,
                                             absl::string_view b);

}  // namespace e3

#endif  // E3_REWARD_SERVICE_MULTIPLICATION_MULTIPLICATION_VERIFIER_H_
