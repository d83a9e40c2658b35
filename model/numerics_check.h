// Whether this machine computes as the design assumes.
#ifndef E3_MODEL_NUMERICS_CHECK_H_
#define E3_MODEL_NUMERICS_CHECK_H_

#include "absl/status/status.h"

namespace e3 {

// Takes some milliseconds: rows of products and norms alone, in batches of several sizes, and for
// each width of vectors that the processor has, must have the same bits. Internal says what
// differs: then log-probabilities depend on the batch on this machine. Servers call it as they
// start.
absl::Status CheckNumerics();

}  // namespace e3

#endif  // E3_MODEL_NUMERICS_CHECK_H_
