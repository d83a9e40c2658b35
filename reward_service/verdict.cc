#include "reward_service/verdict.h"

namespace e3 {

absl::StatusOr<Verdict> Verify(const TaskVerifier& task, absl::string_view text) {
  std::optional<Answer> answer = task.FindAnswer(text);
  if (!answer) return Verdict{0, "", "no-answer", "the response has no complete answer"};
  return task.Judge(*answer);
}

}  // namespace e3
