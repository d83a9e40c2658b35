#include "reward_service/verdict.h"

namespace e3 {

Verdict NoAnswer() { return {0, "", "no-answer", "the response has no complete answer"}; }

absl::StatusOr<Verdict> Verify(const TaskVerifier& task, absl::string_view text) {
  std::optional<Answer> answer = task.FindAnswer(text);
  if (!answer) return NoAnswer();
  return task.Judge(*answer);
}

}  // namespace e3
