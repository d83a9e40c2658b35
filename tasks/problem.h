// What a problem is: a prompt, and how its responses are graded.
#ifndef E3_TASKS_PROBLEM_H_
#define E3_TASKS_PROBLEM_H_

#include <string>

#include "e3/v1/rewards.pb.h"

namespace e3 {

struct Problem {
  std::string prompt;
  // A request to the reward service, but for `id` and `response`.
  v1::ScoreRequest grading;
};

}  // namespace e3

#endif  // E3_TASKS_PROBLEM_H_
