// One request of the reward service, judged.
#ifndef E3_REWARD_SERVICE_VERIFIER_H_
#define E3_REWARD_SERVICE_VERIFIER_H_

#include "e3/v1/rewards.pb.h"

namespace e3 {

// Runs the verifier of the request's task and measures its trace. A request that cannot be judged
// gets error_code and error, never a score. Thread-safe.
v1::ScoreReply Score(const v1::ScoreRequest& request);

}  // namespace e3

#endif  // E3_REWARD_SERVICE_VERIFIER_H_
