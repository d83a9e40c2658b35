// What a problem is: a prompt, and how its responses are graded.
#ifndef E3_TASKS_PROBLEM_H_
#define E3_TASKS_PROBLEM_H_

#include <string>
#include <vector>

#include "e3/v1/rewards.pb.h"

namespace e3 {

struct ChatMessage {
  std::string role;  // "system", "user", "assistant"
  std::string content;
};

struct Problem {
  // The text, or the messages that the model's chat template renders.
  std::string prompt;
  std::vector<ChatMessage> messages;
  // A request to the reward service, but for `id` and `response`.
  v1::ScoreRequest grading;
};

}  // namespace e3

#endif  // E3_TASKS_PROBLEM_H_
