// What a verifier says of a response, and what a task brings to be verified.
#ifndef E3_REWARD_SERVICE_VERDICT_H_
#define E3_REWARD_SERVICE_VERDICT_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace e3 {

struct Verdict {
  double score = 0;       // 1 right, 0 wrong, or a task's partial score
  std::string extracted;  // the answer found in the response; empty when there is none
  std::string rule;       // which rule decided: a short, stable name
  std::string reason;     // one sentence for a person
};

// An answer found in a text.
struct Answer {
  // The text of the answer; where it can be read in several ways, the more likely first.
  std::vector<std::string> readings;
  size_t end = 0;  // the byte after it: a text cut before it does not have this answer
};

// The plug-in point for tasks: one problem, ready to judge any number of responses. Thread-safe.
class TaskVerifier {
 public:
  virtual ~TaskVerifier() = default;
  // The answer that `text` gives; nullopt when it gives none. Linear in `text`.
  virtual std::optional<Answer> FindAnswer(absl::string_view text) const = 0;
  // Judges an answer. An error where there can be no verdict (DeadlineExceeded: no time left).
  virtual absl::StatusOr<Verdict> Judge(const Answer& answer) const = 0;
  // Says all that Judge depends on besides the answer: two problems with one key get one verdict.
  virtual std::string Key() const = 0;
};

// The verdict "no-answer".
Verdict NoAnswer();

// FindAnswer, then Judge; NoAnswer without an answer.
absl::StatusOr<Verdict> Verify(const TaskVerifier& task, absl::string_view text);

}  // namespace e3

#endif  // E3_REWARD_SERVICE_VERDICT_H_
