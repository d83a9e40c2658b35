// What a verifier says of a response.
#ifndef E3_REWARD_SERVICE_VERDICT_H_
#define E3_REWARD_SERVICE_VERDICT_H_

#include <string>

namespace e3 {

struct Verdict {
  double score = 0;       // 1 right, 0 wrong, or a task's partial score
  std::string extracted;  // the answer found in the response; empty when there is none
  std::string rule;       // which rule decided: a short, stable name
  std::string reason;     // one sentence for a person
};

}  // namespace e3

#endif  // E3_REWARD_SERVICE_VERDICT_H_
